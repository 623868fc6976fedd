"""Text for terminals and logs: escaped, in tables on a terminal, aligned in a pipe."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress


def escape(text: str) -> str:
    """Make visible what a terminal or a reader of a log might obey.

    That is every control, formatting and bidirectional character and every line break, as
    Python's escapes: names come from the network.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def whole_output() -> Iterator[None]:
    """For all of a command: its standard output is written, or the command fails.

    What the encoding of standard output lacks is escaped, as on standard error. Raises ``OSError``
    where the output cannot be written, such as for a full disk: Python would report that after the
    command has ended, with a traceback. Where the reader of a pipe has gone, the command exits
    with 1 and says nothing.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if sys.stdout is not None:  # where it was closed before the start
            # Python tries once more at its end, and must find nothing that fails.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        raise


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their heads, escaped; on a terminal cells are folded to its width."""
    lines = [[escape(cell) for cell in row] for row in (heads, *rows)]
    if not sys.stdout.isatty():
        _print_aligned(lines)
        return
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - 30 ms, and only terminals need it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # Text and not str: names are not markup.
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in lines[0]:
        table.add_column(Text(head))
    for row in lines[1:]:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print one thing, a field a line, escaped."""
    lines = [[name, escape(value)] for name, value in fields]
    if not sys.stdout.isatty():
        _print_aligned(lines)
        return
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table.grid(padding=(0, 2))
    for name, value in lines:
        grid.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(grid)


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())  # noqa: T201 - this is the output
