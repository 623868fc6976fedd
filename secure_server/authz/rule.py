"""One rule: which callers and which calls it matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secure_server.auth.claim_path import ClaimPath, claim_texts
from secure_server.auth.principal import Principal
from secure_server.authz.patterns import Patterns


@dataclass(frozen=True, slots=True)
class Caller:
    """What the rules match against, besides the method.

    ``peer_names`` are the identities of the first kind that the certificate has; the empty name for
    TLS without a client certificate; none at all on plaintext, where no ``principals`` match.
    """

    peer_names: tuple[str, ...]
    principal: Principal
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """All conditions must hold; one that is None or empty always holds (A43, "Details")."""

    name: str
    paths: Patterns | None = None
    headers: tuple[tuple[str, Patterns], ...] = ()
    principals: Patterns | None = None
    request_principals: Patterns | None = None
    scopes: Patterns | None = None
    roles: Patterns | None = None
    claims: tuple[tuple[ClaimPath, Patterns], ...] = ()

    def match(self, caller: Caller) -> bool:
        """Whether source and headers match; which paths match is the index's business."""
        if self.principals is not None and not self.principals.match_any(caller.peer_names):
            return False
        return self._match_principal(caller.principal) and self._match_headers(caller.headers)

    def _match_principal(self, principal: Principal) -> bool:
        names, scopes, roles = self.request_principals, self.scopes, self.roles
        if names is None and scopes is None and roles is None and not self.claims:
            return True
        # The anonymous principal matches no pattern, not even "*".
        if principal.is_anonymous:
            return False
        return (
            (names is None or names.match(f"{principal.issuer}/{principal.subject}"))
            and (scopes is None or scopes.match_any(principal.scopes))
            and (roles is None or roles.match_any(principal.roles))
            and all(
                patterns.match_any(claim_texts(principal.claims, path))
                for path, patterns in self.claims
            )
        )

    def _match_headers(self, headers: Mapping[str, str]) -> bool:
        for key, patterns in self.headers:
            value = headers.get(key)
            if value is None or not patterns.match(value):
                return False
        return True
