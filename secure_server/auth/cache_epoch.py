"""A number that says whether cached authentication results are still valid."""

from __future__ import annotations

import threading


class CacheEpoch:
    """Read on the way of every call; incremented when cached results become invalid."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def advance(self) -> None:
        """Make the guard authenticate every caller again."""
        with self._lock:
            self.value += 1
