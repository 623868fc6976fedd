"""What ``secure-client`` prints: lines and JSON to standard output, the rest to standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from secure_base.terminal import escape

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp


def line(text: str) -> None:
    """Print one line and flush it: a program may be waiting for it."""
    print(escape(text), flush=True)  # noqa: T201 - the output of the command


def as_json(value: Any) -> None:
    """Print one JSON document on one line, in ASCII, with control characters escaped."""
    print(json.dumps(value), flush=True)  # noqa: T201 - the output of the command


def note(text: str) -> None:
    """Print a line to standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the output of the command


def complain(text: str) -> None:
    """Say what went wrong, on standard error."""
    note(f"secure-client: {text}")


def fields_of(message: Message) -> dict[str, Any]:
    """A message as JSON, with all fields, named as in the ``.proto`` file."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def moment(timestamp: Timestamp) -> str:
    """RFC 3339 in UTC, to the second; a dash where there is none."""
    if not timestamp.seconds:
        return "-"
    return f"{timestamp.ToDatetime():%Y-%m-%dT%H:%M:%SZ}"
