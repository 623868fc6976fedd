"""JSON Web Tokens of one issuer, after RFC 7519, RFC 8725 (best practice), RFC 9068 (profile)."""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from secure_server.auth import jws
from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import AuthenticationError
from secure_server.auth.keys import KeySet, VerificationKey
from secure_server.auth.principal import Principal
from secure_tls.peer import Peer

_TYPES = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068, section 2.1
_SCOPE = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*", re.ASCII)  # RFC 6749, section 3.3
_MAX_TEXT = 512
_MAX_ROLES = 64
_MAX_TIME = 2**40  # far beyond any date; keeps the arithmetic away from infinities


class JWTAuthenticator:
    """Recognises the access tokens that one issuer signs for one audience.

    Tokens must be certificate-bound (RFC 8705, section 3): the claim ``cnf`` / ``x5t#S256`` must be
    the thumbprint of the peer's certificate. Claims are looked at before the signature, because
    they suffice to refuse and cost nothing; nothing but the signature suffices to accept.
    """

    def __init__(
        self,
        *,
        name: str,
        issuer: str,
        audience: str,
        keys: Callable[[], KeySet],
        max_lifetime: float,
        leeway: float,
        clock: Callable[[], float],
    ) -> None:
        """Take what to expect. ``max_lifetime`` and ``leeway`` are seconds; ``keys`` is asked anew
        for each token, so that a rotation needs no word to this object.
        """
        self.name = name
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._max_lifetime = max_lifetime
        self._leeway = leeway
        self._clock = clock

    def authenticate(self, credentials: Credentials, peer: Peer | None) -> Principal | None:
        """Say who is calling; None where the credentials are not of this issuer.

        Raises ``AuthenticationError``, whose code says which rule was broken.
        """
        if credentials.scheme != "bearer":
            return None
        token = jws.parse(credentials.value)
        if token is None or token.claims.get("iss") != self._issuer:
            return None
        return self._verify(token, peer, bound=True)

    def verify(self, text: str) -> Principal:
        """Say whom a token vouches for, over whichever certificate it may come: its binding is not
        checked. For introspection and revocation, never for admission.

        Raises ``AuthenticationError``.
        """
        token = jws.parse(text)
        if token is None or token.claims.get("iss") != self._issuer:
            raise AuthenticationError("iss", "This is no token of the issuer's.")
        return self._verify(token, None, bound=False)

    def _verify(self, token: jws.UnverifiedToken, peer: Peer | None, *, bound: bool) -> Principal:
        try:
            key = self._check_header(token.header)
            principal = self._check_claims(token.claims)
            if bound:
                _check_binding(principal.thumbprint, peer)
            _check_signature(key, token)
        except AuthenticationError as error:
            raise AuthenticationError(
                error.code, str(error), claims=_unverified(token.claims)
            ) from None
        return principal

    def _check_header(self, header: dict[str, Any]) -> VerificationKey:
        """Find the key. Keys that a token brings along (jwk, jku, x5u, x5c) are never looked at."""
        kind = header.get("typ")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise AuthenticationError("typ", "The token's typ is not at+jwt.")
        if "crit" in header or "b64" in header:
            raise AuthenticationError("crit", "The token demands extensions (crit, b64).")
        key_id = header.get("kid")
        key = self._keys().get(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise AuthenticationError("kid", "The token names no key of the issuer.")
        if header.get("alg") != key.algorithm:
            raise AuthenticationError("alg", f"The token's alg is not its key's, {key.algorithm}.")
        return key

    def _check_claims(self, claims: dict[str, Any]) -> Principal:
        now = self._clock()
        expires, issued = _time(claims, "exp"), _time(claims, "iat")
        if now >= expires + self._leeway:
            raise AuthenticationError("expired", "The token has expired.")
        if issued > now + self._leeway:
            raise AuthenticationError(
                "clock", "The token's iat is in the future: compare the clocks."
            )
        if "nbf" in claims and _time(claims, "nbf") > now + self._leeway:
            raise AuthenticationError(
                "clock", "The token's nbf is in the future: compare the clocks."
            )
        if expires - issued > self._max_lifetime:
            raise AuthenticationError(
                "lifetime", "The token's lifetime is over the allowed maximum."
            )
        self._check_audience(claims.get("aud"))
        return Principal(
            subject=_text(claims, "sub"),
            issuer=self._issuer,
            authenticator=self.name,
            roles=_roles(claims),
            scopes=_scopes(claims),
            client_id=_text(claims, "client_id"),
            token_id=_text(claims, "jti"),
            session_id=_text(claims, "sid") if "sid" in claims else "",
            expires_at=expires,
            thumbprint=_thumbprint(claims),
            claims=MappingProxyType(claims),
        )

    def _check_audience(self, audience: object) -> None:
        if isinstance(audience, str):
            audience = [audience]
        if (
            not isinstance(audience, list)
            or not all(isinstance(one, str) for one in audience)
            or self._audience not in audience
        ):
            raise AuthenticationError("aud", "The token is not meant for this audience.")


def _time(claims: dict[str, Any], name: str) -> float:
    """Return a NumericDate (RFC 7519, section 2) in seconds since the epoch."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AuthenticationError(name, f"The claim {name} is missing or not a number.")
    if not 0 < value < _MAX_TIME or not math.isfinite(value):
        raise AuthenticationError(name, f"The claim {name} is no date.")
    return value


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise AuthenticationError(name, f"The claim {name} is missing, empty or not a text.")
    return value


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    value = claims.get("scope")
    if value is None:
        return frozenset()
    if not isinstance(value, str) or not _SCOPE.fullmatch(value):
        raise AuthenticationError("scope", "The claim scope is not a list as RFC 6749 writes it.")
    return frozenset(value.split(" "))


def _roles(claims: dict[str, Any]) -> frozenset[str]:
    value = claims.get("roles", [])
    if (
        not isinstance(value, list)
        or len(value) > _MAX_ROLES
        or not all(isinstance(role, str) and role for role in value)
    ):
        raise AuthenticationError("roles", "The claim roles is not a list of texts.")
    return frozenset(value)


def _thumbprint(claims: dict[str, Any]) -> str:
    """Return the thumbprint of the certificate that the token is bound to."""
    confirmation = claims.get("cnf")
    thumbprint = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
    if not isinstance(thumbprint, str) or not thumbprint:
        raise AuthenticationError("cnf", "The token is not bound to a certificate.")
    return thumbprint


def _check_binding(thumbprint: str, peer: Peer | None) -> None:
    if peer is None:
        raise AuthenticationError("cnf", "The token is bound to a certificate; there is none.")
    if not hmac.compare_digest(
        thumbprint.encode("utf-8", "surrogatepass"), peer.thumbprint.encode()
    ):
        raise AuthenticationError("cnf", "The token is bound to another certificate.")


def _check_signature(key: VerificationKey, token: jws.UnverifiedToken) -> None:
    if not key.verifies(token.signing_input, token.signature):
        raise AuthenticationError("signature", "The signature is not the issuer's.")


def _unverified(claims: dict[str, Any]) -> dict[str, str]:
    """Return what an operator wants to see of a refused token: short, and nobody's secret."""
    return {
        name: value[:_MAX_TEXT]
        for name in ("iss", "sub", "client_id", "jti")
        if isinstance(value := claims.get(name), str)
    }
