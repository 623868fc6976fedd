"""From another system's groups to our roles."""

from __future__ import annotations

from collections.abc import Mapping

from secure_server.auth.claim_path import ClaimPath, claim_path, claim_texts
from secure_server.auth.claims import Claims


class RoleMap:
    """Reads roles from a claim through an explicit map: the other system's administrators name
    groups there, and must not thereby grant roles here.
    """

    def __init__(self, claim: str, roles: Mapping[str, str]) -> None:
        """Map the values of ``claim`` to roles. Raises ``ValueError`` for a malformed name."""
        path = claim_path(claim)
        if path is None:
            raise ValueError(
                "has a roles_claim that is not the name of a claim, such as groups, "
                "realm_access.roles or [https://example.com/roles]"
            )
        self._path: ClaimPath = path
        self._roles = dict(roles)

    @classmethod
    def of_settings(cls, claim: str | None, roles: Mapping[str, str]) -> RoleMap:
        """Return the map of two settings. Raises ``ValueError`` where only one of them is set."""
        if bool(roles) != (claim is not None):
            raise ValueError(
                "is half a mapping: roles_claim says where to look and roles what a value means; "
                "give both or neither"
            )
        return cls(claim or "roles", roles)

    def of(self, claims: Claims) -> frozenset[str]:
        """Return the roles; values that are not mapped give none."""
        texts = claim_texts(claims, self._path)
        return frozenset(self._roles[text] for text in texts if text in self._roles)
