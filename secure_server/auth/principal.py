"""Who is calling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from secure_server.auth.identity import Identity

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, as one authenticator recognised them: an immutable value.

    ``expires_at`` is seconds since the epoch, or None for a credential that does not expire;
    ``recheck_at``, likewise, is when the authenticator must be asked again, if earlier.
    ``thumbprint`` is that of the certificate which the credential is bound to (RFC 8705), if any.
    ``claims`` are the verified claims, never the credential itself, and are left out of ``repr``.
    """

    subject: str
    issuer: str
    authenticator: str
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    client_id: str = ""
    token_id: str = ""
    session_id: str = ""
    expires_at: float | None = None
    thumbprint: str = ""
    recheck_at: float | None = field(default=None, repr=False, hash=False, compare=False)
    claims: Mapping[str, Any] = field(
        default_factory=lambda: _NO_CLAIMS, repr=False, hash=False, compare=False
    )

    @property
    def identity(self) -> Identity:
        """The key for everything stored about a caller; the subject alone never is."""
        return Identity(self.issuer, self.subject)

    @property
    def is_anonymous(self) -> bool:
        """Whether no credential was presented at all."""
        return not self.authenticator


ANONYMOUS = Principal(subject="", issuer="", authenticator="")
"""The caller without a credential. Policy decides about it like about any other."""
