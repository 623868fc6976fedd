"""What a password may be (NIST SP 800-63B-4, section 3.1.1.2). Pure, and cheap beside hashing."""

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
    """The bytes that are hashed: NFC, then UTF-8. Nothing is cut off, no character is special.

    NFC so that two keyboards that compose accents differently type the same password. Raises
    ``InvalidArgumentError`` beyond 1,024 bytes, before any other work.
    """
    # No character takes less than a byte: this bounds the encoding and the normalisation too.
    if len(password) > MAXIMUM_BYTES:
        raise _too_long(field)
    try:
        encoded = unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(field, f"`{field}` is no Unicode text.") from None
    if len(encoded) > MAXIMUM_BYTES:
        raise _too_long(field)
    return encoded


_TELLING = 4  # characters from which on a user name in a password is no accident


def check_new_password(password: str, *, user_name: str, field: str = "password") -> None:
    """Raise ``InvalidArgumentError`` unless this may become the password of ``user_name``."""
    if len(encode_password(password, field=field)) < MINIMUM_BYTES:
        raise InvalidArgumentError(field, f"`{field}` is too short. Use at least 8 bytes of UTF-8.")
    folded = unicodedata.normalize("NFC", password).casefold()
    # A name of one or two letters is in nearly every good password: what would be left of this one
    # without its user's name must be long enough.
    rest = folded.replace(user_name.casefold(), "")
    if rest != folded and (len(user_name) >= _TELLING or len(rest.encode()) < MINIMUM_BYTES):
        raise InvalidArgumentError(field, f"`{field}` has the user name in it. Use another one.")
    if folded in _common_passwords():
        raise InvalidArgumentError(
            field, f"`{field}` is one of those that everybody tries first. Use another one."
        )


def check_replacement(
    old: str, new: str, *, user_name: str, old_field: str, new_field: str
) -> None:
    """``check_new_password`` for a password that takes the place of another and must differ."""
    old_bytes = encode_password(old, field=old_field)
    check_new_password(new, user_name=user_name, field=new_field)
    if encode_password(new, field=new_field) == old_bytes:
        raise InvalidArgumentError(
            new_field, f"`{new_field}` is the password of today. Use another one."
        )


def _too_long(field: str) -> InvalidArgumentError:
    return InvalidArgumentError(field, f"`{field}` is too long. Use at most 1,024 bytes of UTF-8.")


@cache
def _common_passwords() -> frozenset[str]:
    text = (files("secure_server.users") / "common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
