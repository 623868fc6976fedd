"""Refresh tokens: how they are made and spelt."""

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

# A refresh token is 256 random bits. The first 96 stay the same in a family, so that a used token
# is recognised without keeping every one; 160 are new each time, which is what RFC 6749, section
# 10.10, asks for even against somebody who knows the rest.
FAMILY_BYTES = 12
SECRET_BYTES = 20
SALT_BYTES = 16
_TOKEN_CHARACTERS = 43


def hashed(secret: bytes) -> bytes:
    """SHA-256: fresh random bits need no slow hash."""
    return hashlib.sha256(secret).digest()


def successor(token: bytes, salt: bytes) -> bytes:
    """The next token of the family: so that who lost the answer can be given the same one again,
    of which only a hash is kept. The token alone does not lead to it, and neither does the salt.
    """
    return token[:FAMILY_BYTES] + hmac.digest(token, salt, "sha256")[:SECRET_BYTES]


def encode(token: bytes) -> str:
    """43 characters of base64url."""
    return urlsafe_b64encode(token).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Raises ``RefreshRefusedError``."""
    try:
        token = b64decode(text + "=", altchars=b"-_", validate=True)
    except ValueError:
        raise refused() from None
    # The last character has two bits to spare: one spelling of a token only.
    if len(text) != _TOKEN_CHARACTERS or encode(token) != text:
        raise refused()
    return token


def refused() -> RefreshRefusedError:
    """The error for a token that is not good, whatever the reason."""
    return RefreshRefusedError("The refresh token is not good any more. Log in again.")
