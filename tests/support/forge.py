"""Tokens with any defect, signed with the server's own key or another."""

import base64
import json
import time
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

REMOVE = object()
"""As a claim's or header's value: leave it out."""


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def parts(token: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]


class Forge:
    """Makes tokens as the issuer would, but for what a test changes."""

    def __init__(self, signing_key_pem: bytes, key_id: str, issuer: str, audience: str) -> None:
        key = load_pem_private_key(signing_key_pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.key = key
        self.key_id = key_id
        self.issuer = issuer
        self.audience = audience

    def claims(self, thumbprint: str, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": "users/admin",
            "client_id": "spiffe://example.org/client/admin",
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid.uuid4()),
            "roles": ["admin"],
            "cnf": {"x5t#S256": thumbprint},
        } | changes
        return {name: value for name, value in claims.items() if value is not REMOVE}

    def header(self, **changes: Any) -> dict[str, Any]:
        header = {"alg": "ES256", "typ": "at+jwt", "kid": self.key_id} | changes
        return {name: value for name, value in header.items() if value is not REMOVE}

    def sign(
        self, header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes, key: Any = None
    ) -> str:
        """Sign the very bytes given; ES256 with ``key``, the server's own by default."""
        first = header if isinstance(header, bytes) else json.dumps(header).encode()
        second = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        signing_input = f"{b64(first)}.{b64(second)}"
        algorithm = jwt.get_algorithm_by_name("ES256")
        signature = algorithm.sign(signing_input.encode(), key or self.key)
        return f"{signing_input}.{b64(signature)}"

    def token(
        self, thumbprint: str, header: dict[str, Any] | None = None, key: Any = None, **claims: Any
    ) -> str:
        return self.sign(self.header(**header or {}), self.claims(thumbprint, **claims), key)
