"""A compared server, seen from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Self

from benchmarks.machine import cpu_seconds
from benchmarks.servers import Server


class Process:
    """A server that runs. Use it in a ``with``."""

    def __init__(self, server: Server, folder: Path, core: int | None) -> None:
        """Start it, on that core alone or wherever the system puts it."""
        self._log = folder / "servers.log"
        wanted = json.dumps(asdict(server))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.serve", wanted, str(folder), json.dumps(core)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # To a file: the audit of refusals is written, as in production.
                stderr=log,
                text=True,
            )

    def wait_until_ready(self) -> None:
        """Learn the port. Raises ``RuntimeError`` where the server did not start."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"A server did not start:\n{self._log.read_text()[-4000:]}")
        self.port = int(line)

    def cpu_seconds(self) -> float:
        """Return the user and system time that it has used."""
        return cpu_seconds(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.communicate(timeout=60)  # ends its standard input
