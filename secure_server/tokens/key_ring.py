"""The keys that sign our access tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from secure_server.auth.keys import KeySet, VerificationKey
from secure_tls.errors import TLSFileError
from secure_tls.writing import make_folder, write_new

ALGORITHM = "ES256"


class SigningKeyError(Exception):
    """The signing key cannot be used; the message names the file."""


class KeyRing:
    """One signing key out of a file, and the public keys that verify what was signed."""

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        public_key = private_key.public_key()
        self._private_key = private_key
        self._public_jwk: dict[str, Any] = jwt.get_algorithm_by_name(ALGORITHM).to_jwk(
            public_key, as_dict=True
        )
        self.key_id = _thumbprint(self._public_jwk)
        self.keys: KeySet = MappingProxyType(
            {self.key_id: VerificationKey(self.key_id, ALGORITHM, public_key)}
        )

    def __repr__(self) -> str:
        return f"KeyRing(key_id={self.key_id!r})"

    @classmethod
    def open(cls, path: Path) -> KeyRing:
        """Read the key from a PEM file (PKCS #8), which is made on first use with mode 0600.

        Raises ``SigningKeyError`` where the file is no such key or others may read it.
        """
        if not path.exists():
            _create(path)
        try:
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise SigningKeyError(
                    f"{path}: others can read the signing key. Take it back with `chmod 600`; if "
                    "somebody may have read it, delete it: the server makes another one."
                )
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise SigningKeyError(f"{path}: {error.strerror}.") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SigningKeyError(f"{path}: not an unencrypted private key in PEM.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise SigningKeyError(f"{path}: not a key on the curve P-256, which {ALGORITHM} needs.")
        return cls(key)

    def sign(self, claims: dict[str, Any]) -> str:
        """Return an access token (RFC 9068, section 2) with these claims."""
        return jwt.encode(
            claims,
            self._private_key,
            algorithm=ALGORITHM,
            headers={"typ": "at+jwt", "kid": self.key_id},
        )

    def public_jwks(self) -> list[dict[str, str]]:
        """Return the public keys as JSON Web Keys (RFC 7517), for whoever verifies our tokens."""
        return [{**self._public_jwk, "kid": self.key_id, "use": "sig", "alg": ALGORITHM}]


def _create(path: Path) -> None:
    """Make a key that is complete when its name appears; of two who try, the first wins."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        make_folder(path.parent)
        write_new(path, pem, secret=True)
    except TLSFileError as error:
        raise SigningKeyError(f"The signing key cannot be made: {error}") from None


def _thumbprint(jwk: dict[str, Any]) -> str:
    """Return the key's thumbprint (RFC 7638), base64url."""
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    text = json.dumps(required, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
