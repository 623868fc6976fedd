"""Claims (RFC 7519, section 4), read strictly: a claim is what its standard says, or an error.

Each function raises ``AuthenticationError`` with the claim's name as its code.
"""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Mapping
from typing import Any

from secure_server.auth.errors import AuthenticationError
from secure_tls.peer import Peer

Claims = Mapping[str, Any]

_SCOPE = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*", re.ASCII)  # RFC 6749, section 3.3
_MAX_TEXT = 512
_MAX_ROLES = 64
_MAX_TIME = 2**40  # far beyond any date; keeps the arithmetic away from infinities


def time_of(claims: Claims, name: str) -> float:
    """Return a NumericDate (RFC 7519, section 2) in seconds since the epoch."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AuthenticationError(name, f"The claim {name} is missing or not a number.")
    if not 0 < value < _MAX_TIME or not math.isfinite(value):
        raise AuthenticationError(name, f"The claim {name} is no date.")
    return value


def text_of(claims: Claims, name: str) -> str:
    """Return a text of 1 to 512 characters."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise AuthenticationError(name, f"The claim {name} is missing, empty or not a text.")
    return value


def check_times(claims: Claims, now: float, leeway: float) -> None:
    """Refuse a token whose ``iat`` or ``nbf``, where present, is in the future."""
    for name in ("iat", "nbf"):
        if name in claims and time_of(claims, name) > now + leeway:
            raise AuthenticationError(
                "clock", f"The claim {name} is in the future: compare the clocks."
            )


def check_audience(claims: Claims, expected: str) -> None:
    """Refuse a token for another audience (RFC 7519, section 4.1.3)."""
    audience = claims.get("aud")
    if isinstance(audience, str):
        audience = [audience]
    if (
        not isinstance(audience, list)
        or not all(isinstance(one, str) for one in audience)
        or expected not in audience
    ):
        raise AuthenticationError("aud", "The token is not meant for this audience.")


def scopes_of(claims: Claims, name: str = "scope") -> frozenset[str]:
    """Return the scopes of RFC 6749, section 3.3; none where the claim is absent."""
    value = claims.get(name)
    if value is None:
        return frozenset()
    if not isinstance(value, str) or not _SCOPE.fullmatch(value):
        raise AuthenticationError(name, f"The claim {name} is not a list as RFC 6749 writes it.")
    return frozenset(value.split(" "))


def roles_of(claims: Claims) -> frozenset[str]:
    """Return the claim ``roles`` (RFC 9068, section 2.2.3.1); none where it is absent."""
    value = claims.get("roles", [])
    if (
        not isinstance(value, list)
        or len(value) > _MAX_ROLES
        or not all(isinstance(role, str) and role for role in value)
    ):
        raise AuthenticationError("roles", "The claim roles is not a list of texts.")
    return frozenset(value)


def thumbprint_of(claims: Claims) -> str:
    """Return the certificate that the token is bound to (RFC 8705, section 3.1), or nothing.

    A token that is bound to anything else, such as a key for DPoP (RFC 9449), is refused: the guard
    cannot check that its sender is the one it was issued to.
    """
    if "cnf" not in claims:
        return ""
    confirmation = claims["cnf"]
    thumbprint = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
    if not isinstance(thumbprint, str) or not thumbprint or len(confirmation) != 1:
        raise AuthenticationError("cnf", "The token is bound to something else than a certificate.")
    return thumbprint


def check_binding(thumbprint: str, peer: Peer | None) -> None:
    """Refuse a bound token that is sent over another certificate, or without one."""
    if peer is None:
        raise AuthenticationError("cnf", "The token is bound to a certificate; there is none.")
    if not hmac.compare_digest(
        thumbprint.encode("utf-8", "surrogatepass"), peer.thumbprint.encode()
    ):
        raise AuthenticationError("cnf", "The token is bound to another certificate.")


def unverified(claims: Claims) -> dict[str, str]:
    """Return the claims that audit shows of a refused token: short, and no secrets."""
    return {
        name: value[:_MAX_TEXT]
        for name in ("iss", "sub", "client_id", "jti")
        if isinstance(value := claims.get(name), str)
    }
