"""JSON Web Tokens of one issuer, after RFC 7519, RFC 8725 (best practice), RFC 9068 (profile)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection
from types import MappingProxyType
from typing import Any

from secure_server.auth import claims as read
from secure_server.auth import jws
from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import AuthenticationError
from secure_server.auth.keys import FindKey, VerificationKey
from secure_server.auth.matchers import CredentialMatcher, IssuedBy
from secure_server.auth.principal import Principal
from secure_server.auth.profiles import OWN, Profile, lifetime
from secure_server.auth.role_map import RoleMap
from secure_tls.peer import Peer


class JWTAuthenticator:
    """Recognises the access tokens that one issuer signs for one audience.

    A certificate-bound token (RFC 8705, section 3) is accepted over its own certificate only.
    Claims are checked before the signature, because they are cheap and suffice to refuse; a token
    is accepted only after its signature was verified.
    """

    def __init__(
        self,
        *,
        name: str,
        issuer: str,
        audience: str,
        keys: FindKey,
        max_lifetime: float,
        leeway: float,
        clock: Callable[[], float],
        profile: Profile = OWN,
        must_be_bound: bool = True,
        subject_claim: str = "sub",
        roles: RoleMap | None = None,
    ) -> None:
        """``max_lifetime`` and ``leeway`` are seconds.

        ``keys`` is asked for the key of each token, so that a rotation needs no call to this
        object. ``roles`` reads the principal's roles; without it they are the claim ``roles``. A
        token without a binding is accepted unless ``must_be_bound``.
        """
        self.name = name
        self.matchers: Collection[CredentialMatcher] = (IssuedBy(issuer),)
        self.issuer = issuer
        self._audience = audience
        self._find_key = keys
        self._max_lifetime = max_lifetime
        self._leeway = leeway
        self._clock = clock
        self._profile = profile
        self._must_be_bound = must_be_bound
        self._subject_claim = subject_claim
        self._roles = roles

    @property
    def token_lifetime(self) -> float:
        """Seconds; the longest lifetime of an accepted token."""
        return self._max_lifetime

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal | None:
        """Return the principal; None where the credentials are not of this issuer.

        Raises ``AuthenticationError``, whose code says which rule was broken.
        """
        token = None if credentials is None else credentials.jwt
        if token is None or token.claims.get("iss") != self.issuer:
            return None
        return self._verify(token, peer, over_peer=True)

    def verify(self, text: str) -> Principal:
        """Return the principal of a token without checking its binding to a certificate.

        For introspection and revocation, never for admission. Raises ``AuthenticationError``.
        """
        token = jws.parse(text)
        if token is None or token.claims.get("iss") != self.issuer:
            raise AuthenticationError("iss", "The token is not one of this issuer's.")
        return self._verify(token, None, over_peer=False)

    def _verify(
        self, token: jws.UnverifiedToken, peer: Peer | None, *, over_peer: bool
    ) -> Principal:
        try:
            key_id = self._check_header(token.header)
            principal = self._check_claims(token)
            if over_peer and principal.thumbprint:
                read.check_binding(principal.thumbprint, peer)
            # These two last: finding a key may need the network, and verifying is slow.
            _check_signature(self._key(key_id, token.header), token)
        except AuthenticationError as error:
            error.claims = read.unverified(token.claims)
            raise
        return principal

    def _check_header(self, header: dict[str, Any]) -> str:
        """Return the ``kid``. Keys in the token itself (jwk, jku, x5u, x5c) are never used."""
        kind = header.get("typ", "")
        if not isinstance(kind, str) or kind.lower() not in self._profile.types:
            expected = " or ".join(sorted(self._profile.types)) or "missing"
            raise AuthenticationError("typ", f"The token's typ is not {expected}.")
        if "crit" in header or "b64" in header:
            raise AuthenticationError("crit", "The token demands extensions (crit, b64).")
        key_id = header.get("kid")
        if not isinstance(key_id, str):
            raise AuthenticationError("kid", "The token names no key of the issuer.")
        return key_id

    def _key(self, key_id: str, header: dict[str, Any]) -> VerificationKey:
        key = self._find_key(key_id)
        if key is None:
            raise AuthenticationError("kid", "The token names no key of the issuer.")
        if header.get("alg") != key.algorithm:
            raise AuthenticationError("alg", f"The token's alg is not its key's, {key.algorithm}.")
        return key

    def _check_claims(self, token: jws.UnverifiedToken) -> Principal:
        claims, profile, now = token.claims, self._profile, self._clock()
        expires = read.time_of(claims, "exp")
        if now >= expires + self._leeway:
            raise AuthenticationError("expired", "The token has expired.")
        read.check_times(claims, now, self._leeway)
        if lifetime(claims) > self._max_lifetime:
            raise AuthenticationError(
                "lifetime", "The token's lifetime is over the allowed maximum."
            )
        read.check_audience(claims, self._audience)
        for name in ("sub", *profile.required):
            read.text_of(claims, name)
        profile.check(claims, self._audience)
        thumbprint = read.thumbprint_of(claims)
        if self._must_be_bound and not thumbprint:
            raise AuthenticationError("cnf", "The token is not bound to a certificate.")
        return Principal(
            subject=read.text_of(claims, self._subject_claim),
            issuer=self.issuer,
            authenticator=self.name,
            roles=read.roles_of(claims) if self._roles is None else self._roles.of(claims),
            scopes=read.scopes_of(claims, profile.scopes),
            client_id=_first(claims, profile.client_id),
            token_id=_token_id(token, profile.revoked_by),
            session_id=_first(claims, (profile.session,)),
            expires_at=expires,
            thumbprint=thumbprint,
            claims=MappingProxyType(claims),
        )


def _check_signature(key: VerificationKey, token: jws.UnverifiedToken) -> None:
    if not key.verifies(token.signing_input, token.signature):
        raise AuthenticationError("signature", "The signature is not the issuer's.")


def _first(claims: read.Claims, names: Collection[str]) -> str:
    return next((read.text_of(claims, name) for name in names if name in claims), "")


def _token_id(token: jws.UnverifiedToken, claim: str) -> str:
    """Return the ID to revoke by: a digest of what was signed, never of the text, of which
    several spellings verify.
    """
    if claim:
        return read.text_of(token.claims, claim)
    _, _, payload = token.signing_input.partition(b".")
    digest = hashlib.sha256(payload).digest()
    return "sha256:" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
