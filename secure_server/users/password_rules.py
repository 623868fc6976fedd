"""Rules for passwords (NIST SP 800-63B-4, section 3.1.1.2), without I/O."""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib.resources import files

from secure_server.users.errors import InvalidArgumentError

__all__ = [
    "MAXIMUM_BYTES",
    "MINIMUM_BYTES",
    "check_new_password",
    "check_replacement",
    "encode_password",
]

MINIMUM_BYTES = 8
MAXIMUM_BYTES = 1024


def encode_password(password: str, *, field: str = "password") -> bytes:
    """Return the bytes that are hashed: NFC, then UTF-8. Nothing is cut off or treated specially.

    NFC makes two keyboards that compose accents differently type the same password. Raises
    ``InvalidArgumentError`` beyond 1,024 bytes, before any other work.
    """
    # Each character takes a byte or more, so this also bounds the work of normalising.
    if len(password) > MAXIMUM_BYTES:
        raise _too_long(field)
    try:
        encoded = unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(field, f"`{field}` is no Unicode text.") from None
    if len(encoded) > MAXIMUM_BYTES:
        raise _too_long(field)
    return encoded


_TELLING = 4  # characters; a user name this long is in a password by no accident


def check_new_password(password: str, *, user_name: str, field: str = "password") -> None:
    """Raise ``InvalidArgumentError`` unless this may become the password of ``user_name``."""
    if len(encode_password(password, field=field)) < MINIMUM_BYTES:
        raise InvalidArgumentError(field, f"`{field}` is too short. Use at least 8 bytes of UTF-8.")
    folded = unicodedata.normalize("NFC", password).casefold()
    # Many good passwords contain a user name of one or two letters. They are refused only where
    # too little is left without the name.
    rest = folded.replace(user_name.casefold(), "")
    if rest != folded and (len(user_name) >= _TELLING or len(rest.encode()) < MINIMUM_BYTES):
        raise InvalidArgumentError(field, f"`{field}` contains the user name. Use another one.")
    if folded in _common_passwords():
        raise InvalidArgumentError(
            field, f"`{field}` is one of the passwords that attackers try first. Use another one."
        )


def check_replacement(
    old: str, new: str, *, user_name: str, old_field: str, new_field: str
) -> None:
    """Do what ``check_new_password`` does, and refuse a new password that equals the old one."""
    old_bytes = encode_password(old, field=old_field)
    check_new_password(new, user_name=user_name, field=new_field)
    if encode_password(new, field=new_field) == old_bytes:
        raise InvalidArgumentError(
            new_field, f"`{new_field}` is the current password. Use another one."
        )


def _too_long(field: str) -> InvalidArgumentError:
    return InvalidArgumentError(field, f"`{field}` is too long. Use at most 1,024 bytes of UTF-8.")


@cache
def _common_passwords() -> frozenset[str]:
    text = (files("secure_server.users") / "common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
