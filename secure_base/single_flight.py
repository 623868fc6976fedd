"""One question at a time: of callers that ask the same, one works and the others wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    __slots__ = ("answer", "is_over")

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.answer: V | None = None


class SingleFlight(Generic[K, V]):
    """Named after Go's ``singleflight``. It remembers nothing once a question is answered."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` is how long those wait who do not work."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._flights: dict[K, _Flight[V]] = {}

    def do(
        self,
        key: K,
        work: Callable[[], V],
        *,
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> V | None:
        """Return what ``work`` does, called by the first caller with this key.

        The others hold ``waiting`` while they wait; it may raise. They get None where the work
        raised an exception, which its own caller sees, or takes too long.
        """
        with self._lock:
            flight = self._flights.get(key)
            is_mine = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
        if not is_mine:
            with waiting():
                flight.is_over.wait(self._seconds)
            return flight.answer
        try:
            flight.answer = work()
            return flight.answer
        finally:
            with self._lock:
                del self._flights[key]
            flight.is_over.set()
