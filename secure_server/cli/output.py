"""Printing: tables on a terminal, aligned text in a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer


def escaped(text: str) -> str:
    """The text with what a terminal might obey made visible: names are other people's."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def line(text: str) -> None:
    typer.echo(escaped(text))


def as_json(value: Any) -> None:
    """Print one JSON document on one line, in ASCII."""
    typer.echo(json.dumps(value))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their heads."""
    safe = [[escaped(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(*heads, box=SIMPLE_HEAD, pad_edge=False)
        for row in safe:
            # Text and not str: names are not markup.
            shown.add_row(*(Text(cell, overflow="fold") for cell in row))
        Console().print(shown)
        return
    lines = [[head.upper() for head in heads], *safe]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


def complain(message: str) -> None:
    """Say on standard error what is wrong, each line of it."""
    for each in message.splitlines():
        typer.echo(f"secure-server: {escaped(each)}", err=True)


def fail(message: str) -> typer.Exit:
    """Say on one line what is wrong; the caller raises what is returned, status 1."""
    complain(escaped(message))
    return typer.Exit(1)


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never seen in part, mode 0600. Raises ``typer.Exit``."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise fail(f"{path}: cannot write: {error.strerror}.") from None
