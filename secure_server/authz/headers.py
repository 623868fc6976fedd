"""The headers of a call as a policy sees them: the guard, `explain`, `test` and `check` ask here.

These rules describe what grpcio's servers hand over, the same on both stacks. A test checks them
over a real connection to each (`tests/policy/test_policy_headers.py`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TypeAlias

from secure_server.authz.errors import HeaderError

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
"""Names and values as gRPC hands them over: bytes where the name ends in ``-bin``, else text."""

BINARY = "-bin"
"""The ending of a binary header's name."""

NEVER_HANDED_OVER = frozenset(
    {
        "content-type",
        "te",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-internal-encoding-request",
        "grpc-message",
        "grpc-server-stats-bin",
        "grpc-status",
        "grpc-tags-bin",
        "grpc-timeout",
        "grpc-trace-bin",
        "grpclb_client_stats",
        "endpoint-load-metrics-bin",
        "lb-cost-bin",
        "x-envoy-peer-metadata",
    }
)
"""Headers that grpcio consumes or ends the call for, so that no server sees them. The
pseudo-headers (`:path`, `:authority`, ...) are hidden too."""

HANDED_OVER_ONCE = frozenset({"authorization", "host", "lb-token", "user-agent"})
"""Headers that a policy never sees twice. Of a repeated `user-agent` or `lb-token` gRPC hands over
the last; for a repeated `host` it ends the call, for `authorization` the guard does."""

# gRFC A43, "headers": the Host header and hop-by-hop headers are not supported. grpc-go's list.
_UNSUPPORTED = frozenset(
    {
        "host",
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def policy_headers(metadata: Metadata) -> dict[str, str]:
    """Join repeated values by commas, as gRFC A43 compares them; binary ones as base64 text (A41).

    Names are lower case as in HTTP/2 (RFC 9113, section 8.2.1); values are unchanged, with empty
    ones and spaces.
    """
    headers: dict[str, str] = {}
    for name, value in metadata:
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        headers[name] = f"{headers[name]},{text}" if name in headers else text
    return headers


def described_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what a policy sees of a call with these headers, given in the order of the wire.

    The value of a binary header is base64, with or without its padding. Raises `HeaderError` for
    headers that a policy never sees, or never with this value.
    """
    metadata: list[tuple[str, str | bytes]] = []
    for written, value in pairs:
        name = written.lower()
        if name.startswith(":") or name in NEVER_HANDED_OVER:
            raise HeaderError(
                f"gRPC does not hand over the header {name}, so no rule sees it. Leave it out."
            )
        if name in HANDED_OVER_ONCE and any(name == earlier for earlier, _ in metadata):
            raise HeaderError(f"No policy ever sees two values of the header {name}. Give one.")
        metadata.append((name, _decoded(name, value) if name.endswith(BINARY) else value))
    return policy_headers(metadata)


def why_unmatchable(name: str) -> str | None:
    """Return a sentence why no rule may name a header, or None. ``name`` is lower case."""
    if name.startswith((":", "grpc-")) or name in _UNSUPPORTED:
        return "Pseudo, grpc-, host and hop-by-hop headers are gRPC's own."
    if name in NEVER_HANDED_OVER:
        return (
            "gRPC hands it over to no Python server, so the rule would never decide: take it out."
        )
    return None


def why_never_the_value(name: str, pattern: str) -> str | None:
    """Return a sentence why no header ``name`` can match ``pattern``, or None."""
    if not name.endswith(BINARY) or pattern == "*":
        return None
    if pattern.endswith("*") or pattern.startswith("*"):
        affix = pattern[:-1] if pattern.endswith("*") else pattern[1:]
        possible = not affix.strip(_BASE64)
    else:
        possible = all(_canonical(value) == value for value in pattern.split(","))
    if possible:
        return None
    padded = ",".join(_canonical(value) or "" for value in pattern.split(","))
    hint = f' Did you mean "{padded}"?' if padded.strip(",") else ""
    return f"Binary headers are compared as base64 text with its padding.{hint}"


_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=,"


def _decoded(name: str, value: str) -> bytes:
    decoded = _bytes(value)
    if decoded is None:
        raise HeaderError(
            f"The value of the binary header {name} is not base64 (RFC 4648, section 4), and gRPC "
            "would end the call. Give one value in base64, and the header again for another."
        )
    return decoded


def _canonical(value: str) -> str | None:
    decoded = _bytes(value)
    return None if decoded is None else base64.b64encode(decoded).decode()


def _bytes(value: str) -> bytes | None:
    """Decode base64 as gRPC does: padded or not, and with no bits left over."""
    bare = value.rstrip("=")
    try:
        decoded = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded).decode().rstrip("=") == bare else None
