"""A strict reader of the JWS compact serialization (RFC 7515, section 7.1) around a JWT.

What it returns is *unverified*. It exists because the claims suffice for most refusals, and because
JSON libraries accept what attackers send: members twice, NaN, deep nesting.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from secure_server.auth.errors import AuthenticationError

MAX_TOKEN_BYTES = 8 * 1024
"""Longer tokens are refused unparsed. gRPC metadata ends at 16 KiB."""

_MOST_BRACKETS = 256
"""The most brackets in a part, counted before it is parsed: a bound on its nesting."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """The parts of a token that parses. Nothing in here is verified."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signing_input: bytes
    signature: bytes


def parse(token: str) -> UnverifiedToken | None:
    """Read a token without verifying it; None where the text does not have the form of one.

    Raises ``AuthenticationError`` with code ``too_long`` for more than ``MAX_TOKEN_BYTES``, and
    with code ``malformed`` where the parts are not canonical base64url, not UTF-8 JSON objects,
    nested deeply, or have a member twice.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise AuthenticationError("too_long", f"The token has more than {MAX_TOKEN_BYTES} bytes.")
    match = _COMPACT.fullmatch(token)
    if match is None:
        return None
    header, payload, signature = match.groups()
    return UnverifiedToken(
        header=_object(header, "header"),
        claims=_object(payload, "payload"),
        signing_input=f"{header}.{payload}".encode("ascii"),
        signature=_bytes(signature, "signature"),
    )


def _bytes(text: str, part: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise AuthenticationError("malformed", f"The {part} is not base64url.") from None
    # The last character holds spare bits; a token must not have several spellings.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode("ascii"):
        raise AuthenticationError("malformed", f"The {part} is not canonical base64url.")
    return data


def _object(text: str, part: str) -> dict[str, Any]:
    data = _bytes(text, part)
    if data.count(b"[") + data.count(b"{") > _MOST_BRACKETS:
        raise AuthenticationError("malformed", f"The {part} is nested too deeply.")
    try:
        value = read_json(data)
    except (ValueError, RecursionError):
        raise AuthenticationError(
            "malformed", f"The {part} is not a JSON object with unique members."
        ) from None
    if not isinstance(value, dict):
        raise AuthenticationError("malformed", f"The {part} is not a JSON object.")
    return value


def read_json(data: bytes) -> Any:
    """Read JSON that every parser reads alike (RFC 7493): UTF-8, no member twice, no NaN, no lone
    surrogate.

    Raises ``ValueError`` or ``RecursionError``.
    """
    value = json.loads(
        data.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant
    )
    if b"\\u" in data:
        # Only an escape can make a lone surrogate, which no log and no database can encode.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _refuse_constant(_name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser accepts and JSON does not have."""
    raise ValueError
