"""Printing: tables on a terminal, aligned text in a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
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


def fail(message: str) -> typer.Exit:
    """Say on standard error what is wrong; the caller raises what is returned, status 1."""
    typer.echo(f"secure-server: {escape(message)}", err=True)
    return typer.Exit(1)
