"""Issuing access tokens (RFC 9068) bound to a certificate (RFC 8705, section 3)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from secure_server.auth.identity import Identity
from secure_server.tokens.key_ring import KeyRing


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token. ``expires_at`` is in seconds since the epoch; no repr shows ``text``."""

    text: str = field(repr=False)
    token_id: str
    expires_at: float


class Issuer:
    """Signs access tokens of one issuer for one audience."""

    def __init__(
        self,
        *,
        name: str,
        audience: str,
        lifetime: int,
        key_ring: Callable[[], KeyRing],
        clock: Callable[[], float],
        issued_until: Callable[[Identity, str], float] = lambda _identity, _client_id: 0.0,
    ) -> None:
        """``name`` and ``audience`` are the ``iss`` and ``aud`` of every token, ``lifetime`` is in
        seconds.

        ``issued_until`` returns until when the tokens issued to an identity and a client are
        revoked, in seconds since the epoch.
        """
        self.name = name
        self.audience = audience
        self._lifetime = lifetime
        self._key_ring = key_ring
        self._clock = clock
        self._issued_until = issued_until

    def issue(
        self,
        subject: str,
        *,
        client_id: str,
        thumbprint: str,
        roles: Iterable[str] = (),
        scopes: Iterable[str] = (),
        session_id: str = "",
        issued_at: float | None = None,
    ) -> AccessToken:
        """Issue a token that is valid only over the certificate with this thumbprint.

        ``subject`` is one of this issuer's. ``issued_at``, in seconds since the epoch, is when the
        session of the token was seen alive: a later revocation of the user or client ends this
        token too. Without it the token is issued now.
        """
        if issued_at is None:
            # `iat` is a whole second: a token issued in the second of a revocation, but after it,
            # gets the next second, or it would be revoked too.
            until = self._issued_until(Identity(self.name, subject), client_id)
            issued_at = max(self._clock(), until + 1)
        issued_at = int(issued_at)
        expires_at = issued_at + self._lifetime
        token_id = str(uuid.uuid4())
        claims: dict[str, object] = {
            "iss": self.name,
            "aud": self.audience,
            "sub": subject,
            "client_id": client_id,
            "iat": issued_at,
            "exp": expires_at,
            "jti": token_id,
            "cnf": {"x5t#S256": thumbprint},
        }
        if roles := sorted(roles):
            claims["roles"] = roles
        if scopes := sorted(scopes):
            claims["scope"] = " ".join(scopes)
        if session_id:
            claims["sid"] = session_id
        return AccessToken(self._key_ring().sign(claims), token_id, expires_at)
