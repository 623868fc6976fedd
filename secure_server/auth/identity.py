"""Who a caller is: an issuer, and a name that this issuer gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """Issuer and subject, which identify a caller only together: an immutable value.

    A subject is unique within its issuer alone (RFC 7519, section 4.1.2; OpenID Connect Core 1.0,
    section 5.7), so everything stored, sealed or looked up about a caller is keyed by both.
    """

    issuer: str
    subject: str

    def __str__(self) -> str:
        """``ISSUER/SUBJECT``, as policies match ``request_principals``. For people and patterns
        only: where the subject begins cannot be read from it, so it is never a key.
        """
        return f"{self.issuer}/{self.subject}"
