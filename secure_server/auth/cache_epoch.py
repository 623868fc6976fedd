"""A number that says whether cached authentication results are still valid."""

from __future__ import annotations

import threading
from collections.abc import Callable


class CacheEpoch:
    """A counter that every call reads; incremented when cached results become invalid."""

    __slots__ = ("_lock", "_subscribers", "value")

    def __init__(self) -> None:
        self.value = 0
        self._subscribers: tuple[Callable[[], object], ...] = ()
        self._lock = threading.Lock()

    def advance(self) -> None:
        """Make the guard authenticate every caller again."""
        with self._lock:
            self.value += 1
        for told in self._subscribers:
            told()

    def subscribe(self, told: Callable[[], object]) -> None:
        """Call ``told`` after each ``advance``, on the thread that advances: it must not block."""
        with self._lock:
            self._subscribers = (*self._subscribers, told)
