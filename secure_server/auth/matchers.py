"""How an authenticator recognises its credentials, before any cryptography.

No two authenticators may claim the same credentials: the order in a file would decide which of them
is asked, and one could vouch for the callers of the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from secure_server.auth.credentials import BEARER

# A JWT begins with the base64url of "{" and the byte after it.
_JWT_BEGINS = re.compile(r"e?|e[w-z].*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class IssuedBy:
    """Bearer tokens that are JWTs with this ``iss``."""

    issuer: str

    def __str__(self) -> str:
        return f"JWTs whose iss is {self.issuer}"


@dataclass(frozen=True, slots=True)
class Prefix:
    """Bearer tokens that begin with this text."""

    text: str

    def __str__(self) -> str:
        return f"bearer tokens that begin with {self.text}"


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bearer tokens that are not JWTs and match no ``Prefix``."""

    def __str__(self) -> str:
        return "opaque bearer tokens"


@dataclass(frozen=True, slots=True)
class Scheme:
    """All credentials of one authorization scheme (RFC 9110, section 11.1) other than Bearer."""

    name: str

    def __str__(self) -> str:
        return f"the authorization scheme {self.name}"


@dataclass(frozen=True, slots=True)
class BareCertificate:
    """Calls with a client certificate and no credential."""

    def __str__(self) -> str:
        return "client certificates without a credential"


CredentialMatcher = IssuedBy | Prefix | Opaque | Scheme | BareCertificate


def overlap(one: CredentialMatcher, other: CredentialMatcher) -> bool:
    """Whether some credentials match both."""
    if isinstance(one, Prefix) and isinstance(other, Prefix):
        return one.text.startswith(other.text) or other.text.startswith(one.text)
    if isinstance(one, Prefix) and isinstance(other, IssuedBy):
        return _JWT_BEGINS.fullmatch(one.text) is not None
    if isinstance(one, IssuedBy) and isinstance(other, Prefix):
        return overlap(other, one)
    if isinstance(one, Scheme) and isinstance(other, Scheme):
        return one.name.lower() == other.name.lower()
    return one == other


def check(matcher: CredentialMatcher) -> None:
    """Refuse a matcher that would match other authenticators' credentials, by ``ValueError``."""
    if isinstance(matcher, Scheme) and matcher.name.lower() == BEARER:
        raise ValueError(
            "The scheme Bearer is shared by several authenticators: claim IssuedBy, Prefix "
            "or Opaque within it."
        )
    if isinstance(matcher, Prefix | IssuedBy) and not str(
        getattr(matcher, "text", None) or getattr(matcher, "issuer", "")
    ):
        raise ValueError("An empty prefix or issuer would claim everything.")
