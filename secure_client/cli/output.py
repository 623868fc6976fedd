"""Printing: tables on a terminal, aligned text in a pipe, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def escaped(text: str) -> str:
    """The text with everything that a terminal might obey made visible.

    That is every control, formatting and bidirectional character and every line break: they come
    from the network.
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their heads."""
    safe = [[escaped(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        shown = Table(*heads, box=SIMPLE_HEAD, pad_edge=False)
        for row in safe:
            shown.add_row(*(Text(cell, overflow="fold") for cell in row))
        Console().print(shown)
        return
    _aligned([[head.upper() for head in heads], *safe])


def record(fields: Iterable[tuple[str, str]]) -> None:
    """Print one thing, a field a line."""
    rows = [[name, escaped(value)] for name, value in fields]
    if sys.stdout.isatty():
        shown = Table.grid(padding=(0, 2))
        for name, value in rows:
            shown.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
        Console().print(shown)
        return
    _aligned(rows)


def line(text: str) -> None:
    """Print one line at once: somebody may be waiting for it."""
    print(escaped(text), flush=True)  # noqa: T201 - the output of the command


def as_json(value: Any) -> None:
    """Print one JSON document on one line, in ASCII: escapes take care of control characters."""
    print(json.dumps(value), flush=True)  # noqa: T201 - the output of the command


def note(text: str) -> None:
    """Tell the person, not the pipe."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the output of the command


def complain(text: str) -> None:
    """Say what went wrong, on standard error."""
    note(f"secure-client: {text}")


def fields_of(message: Message) -> dict[str, Any]:
    """A message as JSON knows it, under the names of the ``.proto`` file, nothing left out."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def moment(timestamp: Timestamp) -> str:
    """RFC 3339 in UTC, to the second; a dash where there is none."""
    if not timestamp.seconds:
        return "-"
    return f"{timestamp.ToDatetime():%Y-%m-%dT%H:%M:%SZ}"


def _aligned(rows: list[list[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())  # noqa: T201 - the output of the command
