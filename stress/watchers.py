"""Callers who open streams and cancel them: ``python -m stress.watchers``, a process of its own."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc

from tests.support.running import ClientFiles

_DEADLINE = 10.0
"""Seconds in which the first message of a stream must come; a frozen server sends none."""


class Watchers:
    """Threads that open and cancel one stream after the other, until so many were opened."""

    def __init__(self, address: str, files: ClientFiles, paths: list[str], watches: int) -> None:
        self._address, self._files, self._paths = address, files, paths
        self._lock = threading.Lock()
        self._left = watches
        self.cancelled = 0
        self.failed: list[str] = []

    def run(self, threads: int) -> None:
        started = [threading.Thread(target=self._watch) for _ in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    def _take(self) -> int | None:
        with self._lock:
            if not self._left or self.failed:
                return None
            self._left -= 1
            return self._left

    def _watch(self) -> None:
        with self._files.channel(self._address) as channel:
            methods: list[Any] = [channel.unary_stream(path) for path in self._paths]
            while (number := self._take()) is not None:
                call = methods[number % len(methods)](b"", timeout=_DEADLINE)
                try:
                    next(call)
                except grpc.RpcError as error:
                    self.failed.append(f"{error.code().name} {error.details()}")
                call.cancel()
                with self._lock:
                    self.cancelled += 1


def main(wanted: str) -> None:
    """Read JSON (address, files, paths, watches, threads), and print JSON."""
    told = json.loads(wanted)
    files = ClientFiles(*(Path(name) for name in told["files"]))
    watchers = Watchers(told["address"], files, told["paths"], told["watches"])
    begun = time.monotonic()
    watchers.run(told["threads"])
    print(
        json.dumps(
            {
                "cancelled": watchers.cancelled - len(watchers.failed),
                "failed": watchers.failed,
                "seconds": round(time.monotonic() - begun, 1),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
