"""An issuer of access tokens in memory, which can also get them wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from secure_server.auth.keys import KeySet, VerificationKey
from secure_server.testing.defects import Draft, spoil
from secure_tls.authority import Issued
from secure_tls.peer import parse_peer

_LIFETIME = 3600
"""Seconds; the longest that the guard takes, so that no test outlives its token."""


class Issuer:
    """Signs access tokens (RFC 9068) with an ES256 key that exists in memory alone.

    A class because key, name and audience belong together: an authenticator is told of all three.

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
    ...     keys=lambda: issuer.key_set,
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Vouch as ``name`` (``iss``) towards ``audience`` (``aud``).

        ``clock`` gives seconds since the epoch. A guarded server reads the clock of its issuer, so
        that a test can let tokens expire without waiting.
        """
        self.name = name
        self.audience = audience
        self.clock = clock
        self._private_key = ec.generate_private_key(ec.SECP256R1())
        self._jwk = _jwk(self._private_key.public_key())
        self.key_id: str = self._jwk["kid"]

    def __repr__(self) -> str:
        return f"Issuer({self.name!r}, {self.audience!r})"

    @property
    def key_set(self) -> KeySet:
        """The public key by its ``kid``: what ``JWTAuthenticator(keys=...)`` returns."""
        key = VerificationKey(self.key_id, "ES256", self._private_key.public_key())
        return MappingProxyType({self.key_id: key})

    def jwks(self) -> str:
        """Return the public key as a JSON Web Key Set (RFC 7517, section 5), a JSON text.

        It is what ``tokens.key_set`` of the configuration wants in a file.
        """
        return json.dumps({"keys": [self._jwk]})

    def token(
        self,
        client_or_thumbprint: Issued | str,
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
        SHA-256 of the DER). The ``client_id`` is the certificate's SPIFFE ID, or with a thumbprint
        the subject. ``claims`` are added, and replace the issuer's own; times are in seconds since
        the epoch.

        With a ``defect``, one of ``DEFECTS``, the token has this one and no other. Raises
        ``ValueError`` for a defect that there is not, and ``secure_tls.PeerError`` for a
        certificate without a client's identity.
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
            "cnf": {"x5t#S256": thumbprint},
        }
        if roles := sorted(roles):
            own["roles"] = roles
        if scopes := sorted(scopes):
            own["scope"] = " ".join(scopes)  # RFC 9068, section 2.2.3
        header = {"alg": "ES256", "typ": "at+jwt", "kid": self.key_id}
        draft = Draft(header, own | claims, self._private_key, now)
        return draft.sign() if defect is None else spoil(draft, defect)


def _binding(client: Issued | str, subject: str) -> tuple[str, str]:
    if isinstance(client, str):
        return client, subject
    peer = parse_peer(client.certificate_pem)
    return peer.thumbprint, peer.spiffe_id or subject


def _jwk(public_key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    jwk: dict[str, Any] = jwt.get_algorithm_by_name("ES256").to_jwk(public_key, as_dict=True)
    # RFC 7638, section 3: the members that are required, sorted, without white space.
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    text = json.dumps(required, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).digest()
    key_id = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return {**jwk, "kid": key_id, "use": "sig", "alg": "ES256"}
