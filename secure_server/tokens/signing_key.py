"""One key pair that signs access tokens."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from secure_server.auth.keys import VerificationKey

ALGORITHM = "ES256"


class SigningKeyError(Exception):
    """The signing keys cannot be used or changed; the message names the file."""


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """A P-256 key with the times from which it is published and signs.

    Both are whole seconds since the epoch, as the key file stores them.
    """

    private_key: ec.EllipticCurvePrivateKey = field(repr=False)
    published: int
    signs_from: int
    verification: VerificationKey = field(init=False, repr=False)
    public_jwk: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        public_key = self.private_key.public_key()
        jwk = jwt.get_algorithm_by_name(ALGORITHM).to_jwk(public_key, as_dict=True)
        key_id = _thumbprint(jwk)
        public = {**jwk, "kid": key_id, "use": "sig", "alg": ALGORITHM}
        object.__setattr__(self, "public_jwk", MappingProxyType(public))
        object.__setattr__(self, "verification", VerificationKey(key_id, ALGORITHM, public_key))

    @classmethod
    def generate(cls, published: int, signs_from: int) -> Self:
        """Generate a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()), published, signs_from)

    @property
    def key_id(self) -> str:
        """The ``kid`` of its tokens, which is the key's thumbprint (RFC 7638)."""
        return self.verification.key_id

    def sign(self, claims: dict[str, Any]) -> str:
        """Return an access token (RFC 9068, section 2) with these claims."""
        headers = {"typ": "at+jwt", "kid": self.key_id}
        return jwt.encode(claims, self.private_key, algorithm=ALGORITHM, headers=headers)


def _thumbprint(jwk: dict[str, Any]) -> str:
    """Return the key's thumbprint (RFC 7638), base64url."""
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    text = json.dumps(required, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
