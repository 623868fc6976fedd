"""Refresh tokens: their bytes, their text, and the next one of a family."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, urlsafe_b64encode

from secure_server.tokens.errors import RefreshRefusedError

__all__ = [
    "FAMILY_BYTES",
    "SALT_BYTES",
    "SECRET_BYTES",
    "decode",
    "encode",
    "hashed",
    "refused",
    "successor",
]

# A refresh token is 256 random bits. The first 96 are the same in a whole family, so that a used
# token is recognised without storing each one. The other 160 are new each time: as many as RFC
# 6749, section 10.10, asks for, even against an attacker who knows the first 96.
FAMILY_BYTES = 12
SECRET_BYTES = 20
SALT_BYTES = 16
_TOKEN_CHARACTERS = 43


def hashed(secret: bytes) -> bytes:
    """Return the SHA-256. Random bits need no slow hash."""
    return hashlib.sha256(secret).digest()


def successor(token: bytes, salt: bytes) -> bytes:
    """Return the next token of the family.

    It is derived from the token and the stored salt, so a client that lost the answer can get the
    same token again although only its hash is stored. Neither token nor salt alone is enough.
    """
    return token[:FAMILY_BYTES] + hmac.digest(token, salt, "sha256")[:SECRET_BYTES]


def encode(token: bytes) -> str:
    """Return 43 characters of base64url."""
    return urlsafe_b64encode(token).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Return the bytes of a refresh token. Raises ``RefreshRefusedError``."""
    try:
        token = b64decode(text + "=", altchars=b"-_", validate=True)
    except ValueError:
        raise refused() from None
    # The last character has two unused bits: accept only one text for each token.
    if len(text) != _TOKEN_CHARACTERS or encode(token) != text:
        raise refused()
    return token


def refused() -> RefreshRefusedError:
    """Return the error for an invalid token, the same for every reason."""
    return RefreshRefusedError("The refresh token is not good any more. Log in again.")
