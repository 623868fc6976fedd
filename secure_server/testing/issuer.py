"""An issuer of access tokens in memory, good ones and defective ones."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import jwt

from secure_server.auth.key_sets import parse_key_set
from secure_server.auth.keys import KeySet, VerificationKey
from secure_server.testing.defects import Draft, generate_key, spoil
from secure_tls.authority import Issued
from secure_tls.peer import parse_peer

_LIFETIME = 3600
"""Seconds; the longest that the guard accepts, so that no test outlives its token."""


class Issuer:
    """Signs access tokens (RFC 9068) with keys that exist in memory alone.

    A class because an authenticator needs key, name and audience together.

    >>> import time
    >>> from secure_server import AuthenticationError, Credentials
    >>> from secure_server.auth.jwt import JWTAuthenticator
    >>> from secure_server.testing import Issuer
    >>> from secure_tls import Authority, parse_peer
    >>> issuer = Issuer()
    >>> authenticator = JWTAuthenticator(
    ...     name="jwt",
    ...     issuer=issuer.name,
    ...     audience=issuer.audience,
    ...     keys=issuer.find_key,
    ...     max_lifetime=3600,
    ...     leeway=10,
    ...     clock=time.time,
    ... )
    >>> alice = Authority.create("example.org").issue_client("alice")
    >>> peer = parse_peer(alice.certificate_pem)
    >>> authenticator.authenticate(Credentials("bearer", issuer.token(alice)), peer).subject
    'alice'
    >>> expired = issuer.token(alice, defect="expired")
    >>> try:
    ...     authenticator.authenticate(Credentials("bearer", expired), peer)
    ... except AuthenticationError as error:
    ...     print(error.code)
    expired
    """

    def __init__(
        self,
        name: str = "https://issuer.example.org",
        audience: str = "example",
        *,
        algorithm: str = "ES256",
        typ: str = "at+jwt",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Sign tokens with ``iss`` ``name`` and ``aud`` ``audience``.

        ``algorithm`` is one of those of RFC 7518 and RFC 8037 that the guard accepts; ``typ`` is
        the tokens' ``typ``, or empty for none. ``clock`` gives seconds since the epoch. A guarded
        server reads the clock of its issuer, so that a test can let tokens expire without waiting.
        """
        self.name = name
        self.audience = audience
        self.clock = clock
        self._algorithm = algorithm
        self._typ = typ
        self._jwks: list[dict[str, Any]] = []
        self.rotate()

    def __repr__(self) -> str:
        return f"Issuer({self.name!r}, {self.audience!r})"

    def rotate(self, *, keep_old: bool = True) -> None:
        """Sign with a new key from now on; publish it beside the old ones or in their place."""
        self._private_key = generate_key(self._algorithm)
        jwk = _jwk(self._algorithm, self._private_key.public_key())
        self.key_id: str = jwk["kid"]
        self._jwks = [jwk, *(self._jwks if keep_old else [])]

    @property
    def key_set(self) -> KeySet:
        """The public keys by their ``kid``."""
        keys, _ = parse_key_set(self.jwks().encode(), self.name)
        return keys

    def find_key(self, key_id: str) -> VerificationKey | None:
        """Return the public key of this ``kid``: what ``JWTAuthenticator(keys=...)`` wants."""
        return self.key_set.get(key_id)

    def jwks(self) -> str:
        """Return the public keys as a JSON Web Key Set (RFC 7517, section 5), a JSON text.

        A file of it can be ``tokens.key_set`` of the configuration.
        """
        return json.dumps({"keys": self._jwks})

    def token(
        self,
        client_or_thumbprint: Issued | str | None,
        /,
        *,
        subject: str = "alice",
        roles: Iterable[str] = (),
        scopes: Iterable[str] = (),
        defect: str | None = None,
        **claims: Any,
    ) -> str:
        """Sign a token that is good for an hour over one client certificate (RFC 8705, section 3).

        The certificate is what ``secure_tls.Authority`` issued, or its thumbprint (base64url
        SHA-256 of the DER), or None for an unbound token. The ``client_id`` is the certificate's
        SPIFFE ID, or without one the subject. ``claims`` are added, or replace the issuer's own;
        times are in seconds since the epoch.

        With a ``defect``, one of ``DEFECTS``, the token has this one and no other. Raises
        ``ValueError`` for an unknown defect, and ``secure_tls.PeerError`` for a certificate without
        a client's identity.
        """
        thumbprint, client_id = _binding(client_or_thumbprint, subject)
        now = int(self.clock())
        own: dict[str, Any] = {
            "iss": self.name,
            "aud": self.audience,
            "sub": subject,
            "client_id": client_id,
            "iat": now,
            "exp": now + _LIFETIME,
            "jti": str(uuid.uuid4()),
        }
        if thumbprint:
            own["cnf"] = {"x5t#S256": thumbprint}
        if roles := sorted(roles):
            own["roles"] = roles
        if scopes := sorted(scopes):
            own["scope"] = " ".join(scopes)  # RFC 9068, section 2.2.3
        header = {"alg": self._algorithm, "kid": self.key_id}
        if self._typ:
            header["typ"] = self._typ
        draft = Draft(header, own | claims, self._private_key, self._algorithm, now)
        return draft.sign() if defect is None else spoil(draft, defect)


def _binding(client: Issued | str | None, subject: str) -> tuple[str, str]:
    if client is None or isinstance(client, str):
        return client or "", subject
    peer = parse_peer(client.certificate_pem)
    return peer.thumbprint, peer.spiffe_id or subject


def _jwk(algorithm: str, public_key: Any) -> dict[str, Any]:
    jwk: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(public_key, as_dict=True)
    # RFC 7638, section 3: the members that are required, sorted, without white space.
    required: dict[str, Any] = {
        name: jwk[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in jwk
    }
    text = json.dumps(required, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).digest()
    key_id = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return {**required, "kid": key_id, "use": "sig", "alg": algorithm}
