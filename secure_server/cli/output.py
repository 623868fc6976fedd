"""Printing: tables on a terminal, aligned text in a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from secure_base.terminal import escape, print_table


def line(text: str) -> None:
    typer.echo(escape(text))


def as_json(value: Any) -> None:
    """Print one JSON document on one line, in ASCII."""
    typer.echo(json.dumps(value))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their heads."""
    print_table([head.upper() for head in heads], rows)


def complain(message: str) -> None:
    """Say on standard error what is wrong, each line of it."""
    for each in message.splitlines():
        typer.echo(f"secure-server: {escape(each)}", err=True)


def fail(message: str) -> typer.Exit:
    """Say on one line what is wrong; the caller raises what is returned, status 1."""
    complain(escape(message))
    return typer.Exit(1)


def write_whole(path: Path, text: str) -> None:
    """Write a file, mode 0600, in a folder that is made where it is missing.

    Raises ``typer.Exit``, after saying why.
    """
    from secure_base.atomic_files import make_folder, replace

    try:
        make_folder(path.parent)
        replace(path, text.encode())
    except OSError as error:
        raise fail(f"{path}: cannot write: {error.strerror}.") from None
