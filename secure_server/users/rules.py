"""The rules of ``user_service.proto`` for the fields of a user, one function each.

Every function returns the value as it is stored, or raises ``InvalidArgumentError`` with the
field's name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from secure_server.users.account import AccountState
from secure_server.users.errors import InvalidArgumentError

__all__ = [
    "check_changes",
    "check_display_name",
    "check_email",
    "check_request_id",
    "check_roles",
    "check_state",
    "check_user_name",
    "is_user_name",
    "parse_resource_name",
]

_USER_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ROLE: Final = re.compile(r"[a-z0-9._-]{1,63}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_EMAIL_CHARACTERS = 254  # RFC 5321, section 4.5.3.1.3, less the angle brackets.
_DISPLAY_NAME_CHARACTERS = 128
_ROLES = 32


def is_user_name(text: str) -> bool:
    """Whether this can be a user name. Names are compared byte by byte."""
    return _USER_NAME.fullmatch(text) is not None


def check_user_name(text: str, *, field: str = "user_id") -> str:
    if not is_user_name(text):
        raise InvalidArgumentError(
            field,
            f"`{field}` is not a user name. Use 1 to 63 of the characters a-z, 0-9 and '-', "
            "starting with a letter and not ending with '-'.",
        )
    return text


def parse_resource_name(name: str, *, field: str = "name") -> str:
    """Return the user name in ``users/{user}`` (AIP-122)."""
    prefix, _, user = name.partition("/")
    if prefix != "users" or not is_user_name(user):
        raise InvalidArgumentError(field, f"`{field}` must be `users/` and a user name.")
    return user


def check_email(text: str) -> str:
    """Accept an empty text, or one with a local part and a domain; it need not exist."""
    if not text:
        return text
    local, _, domain = text.rpartition("@")
    if (
        len(text) > _EMAIL_CHARACTERS
        or not local
        or not domain
        or any(c.isspace() or _is_forbidden(c) for c in text)
    ):
        raise InvalidArgumentError(
            "email", "`email` must be an address such as ada@example.com, at most 254 characters."
        )
    return text


def check_display_name(text: str) -> str:
    if len(text) > _DISPLAY_NAME_CHARACTERS or any(map(_is_forbidden, text)):
        raise InvalidArgumentError(
            "display_name",
            "`display_name` has at most 128 characters, none of them a control character.",
        )
    return text


def check_roles(roles: Collection[str]) -> tuple[str, ...]:
    """Return the roles sorted and without repetitions."""
    wanted = set(roles)
    if len(wanted) > _ROLES:
        raise InvalidArgumentError("roles", "`roles` has at most 32 roles.")
    if not all(map(_ROLE.fullmatch, wanted)):
        raise InvalidArgumentError(
            "roles", "`roles` has a bad one. Use 1 to 63 of the characters a-z, 0-9, '.', '_', '-'."
        )
    return tuple(sorted(wanted))


def check_state(state: str) -> AccountState:
    try:
        return AccountState(state)
    except ValueError:
        raise InvalidArgumentError("state", "`state` must be active or disabled.") from None


def check_request_id(text: str) -> str:
    """Return an empty text, or a UUID (AIP-155, RFC 9562) in lower case."""
    lowered = text.lower()
    if text and not _UUID.fullmatch(lowered):
        raise InvalidArgumentError(
            "request_id", "`request_id` must be a UUID such as one of version 4."
        )
    return lowered


def check_changes(changes: Mapping[str, object]) -> dict[str, Any]:
    """Return the checked changes; an unknown field is an error of the field ``update_mask``."""
    checked = {}
    for field, value in changes.items():
        if field not in _CHANGEABLE:
            raise InvalidArgumentError(
                "update_mask",
                "`update_mask` names a field that cannot be changed. "
                "Use email, display_name, roles, state or *.",
            )
        checked[field] = _CHANGEABLE[field](value)
    return checked


_CHANGEABLE: Final[Mapping[str, Callable[[Any], object]]] = {
    "email": check_email,
    "display_name": check_display_name,
    "roles": check_roles,
    "state": check_state,
}


def _is_forbidden(character: str) -> bool:
    # Control characters, and surrogates, which UTF-8 cannot encode.
    return unicodedata.category(character) in {"Cc", "Cs"}
