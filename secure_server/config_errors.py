"""What is wrong with a configuration, in sentences: file, line, key, and what to do."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

ENVIRONMENT = "SECURE_SERVER_"
"""``SECURE_SERVER_TLS__CLIENT_CA`` is ``client_ca`` of ``[tls]``."""

Location = tuple[int | str, ...]
KnownKeys = Callable[[Location], list[str]]


def explain(error: ValidationError, path: Path | None, text: str, known_keys: KnownKeys) -> str:
    """Write one line a problem: where, which key, what is wrong.

    ``text`` is that of the file; ``known_keys`` lists the keys that the table at a place may have.
    """
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        location = problem["loc"]
        where = place_of(location, path, text)
        lines.append(f"{where} {_sentence(problem, location, known_keys)}")
    return "\n".join(lines)


def place_of(location: Location, path: Path | None, text: str) -> str:
    """Say where a setting is: its variable, or file, line and key."""
    for length in (len(location), 2, 1):
        variable = ENVIRONMENT + "__".join(str(part).upper() for part in location[:length])
        if variable in os.environ:
            return f"environment: {variable}"
    line = _line_of(text, location)
    key = ".".join(str(part) for part in location)
    return f"{path or 'defaults'}{f':{line}' if line else ''}: {key}"


def _sentence(problem: Any, location: Location, known_keys: KnownKeys) -> str:
    if problem["type"] == "extra_forbidden":
        known = known_keys(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
        return f"is not a setting; {hint}"
    if problem["type"] == "missing":
        return "is missing."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not message.startswith(_VERBS):
        message = f"is wrong: {message}"
    return message if message.endswith((".", "?")) else f"{message}."


_VERBS = ("is ", "has ", "was ", "cannot ")

_TABLE = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)(?:\s*\.\s*[A-Za-z0-9_-]+)*\s*=")


def _line_of(text: str, location: Location) -> int | None:
    """Find the line of a setting, or of its table where it has none. tomllib keeps no positions."""
    table: Location = ()
    seen: dict[str, int] = {}
    best: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.fullmatch(line):
            name = match[2]
            if match[1] == "[[":
                table = (name, seen.get(name, 0))
                seen[name] = seen.get(name, 0) + 1
            else:
                table = tuple(name.split("."))
            if table == location[: len(table)] or (
                best is None and table[: len(location)] == location
            ):
                best = number
        elif (match := _KEY.match(line)) and (*table, match[1]) == location[: len(table) + 1]:
            return number
    return best
