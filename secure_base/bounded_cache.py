"""A cache with a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """A dictionary that forgets its oldest entries: reading takes no lock, adding does.

    ``get`` is the dictionary's own, so that a hit costs no call of Python code.
    """

    def __init__(self, most: int) -> None:
        """Keep ``most`` entries at the most."""
        self._entries: dict[K, V] = {}
        self._most = most
        self._lock = threading.Lock()
        self.get: Callable[[K], V | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V) -> None:
        """Add or replace an entry, and drop the oldest while there are too many."""
        with self._lock:
            self._entries[key] = value
            while len(self._entries) > self._most:
                del self._entries[next(iter(self._entries))]
