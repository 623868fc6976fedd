"""docs/architecture.md: what it names exists, and what exists of its kinds it names."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from support.house import House

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = ("secure_base", "secure_tls", "secure_server", "secure_client")


def table(heading: str) -> list[list[str]]:
    """The rows of the first table after a heading, without its head."""
    lines = TEXT.split(f"## {heading}\n")[1].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    end = next((n for n, line in enumerate(lines) if line.startswith("## ")), len(lines))
    rows = [line for line in lines[:end] if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_every_path_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:secure_|docs/|protos/)[\w/.]*(?:/|\.py|\.md))`", TEXT))
    assert len(named) > 40
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_file_in_the_drawing_is_one_of_the_guards() -> None:
    drawing = TEXT.split("## The way of a call")[1].split("```")[1]
    files = set(re.findall(r"(?<![\w/])((?:adapters/)?\w+\.py)", drawing))
    assert {"core.py", "refusal.py", "adapters/threads.py"} < files
    assert all((ROOT / "secure_server" / "guard" / file).is_file() for file in files)


def test_every_room_is_in_the_table() -> None:
    rooms = {match for row in table("The rooms") for match in re.findall(r"`([\w/]+)/`", row[0])}
    packages = {
        init.parent.relative_to(ROOT).as_posix()
        for room in ("secure_server",)
        for init in (ROOT / room).rglob("__init__.py")
        if "migrations" not in init.parts
    } - {"secure_server"}
    assert packages <= rooms, packages - rooms
    assert set(ROOMS) - {"secure_server"} <= rooms


@pytest.mark.usefixtures("house")
def test_every_thread_of_a_server_is_in_the_table(house: House) -> None:
    rows = {name for row in table("Threads and pools") for name in re.findall(r"`([^`]+)`", row[0])}
    prefixes = tuple(name.removesuffix(" …") for name in rows)
    names = {thread.name for thread in threading.enumerate()}
    assert {"timeouts", "stream-watch", "reloads"} <= names
    ours = {
        name
        for name in names
        # Those of grpcio and of the test's own have no name but a number.
        if not name.startswith(("MainThread", "Thread-", "Dummy-", "loop", "pytest", "execnet"))
    }
    assert {name for name in ours if not name.startswith(prefixes)} == set()
