"""A number that changes when answers given before may no longer hold."""

from __future__ import annotations

import threading


class Generation:
    """Read on the way of every call; moved on by whoever has forgotten something."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def advance(self) -> None:
        """Have everybody ask again."""
        with self._lock:
            self.value += 1
