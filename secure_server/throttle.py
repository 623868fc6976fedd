"""Throttles log lines that callers can cause: the first of a kind are written, the rest counted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_KINDS = 64

More = Callable[[int], object]
"""Logs how many more lines of the kind were not written."""


@dataclass(slots=True)
class _Kind:
    ends_at: float
    more: More
    written: int = 0
    held_back: int = 0


class Throttle:
    """At most ``most`` lines of one kind in ``seconds``, then one that counts the others.

    A class because it counts by kind, for 64 kinds at most: all others together are one kind. So
    the total number of lines is bounded, whatever they say.
    """

    def __init__(
        self,
        *,
        most: int = 5,
        seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A kind's ``seconds`` begin with its first line."""
        self._most = most
        self._seconds = seconds
        self._clock = clock
        # Reentrant, and every step under it is complete in itself: the garbage collector may run
        # there, and a finalizer may log (``sys.unraisablehook``).
        self._lock = threading.RLock()
        self._kinds: dict[Hashable, _Kind] = {}
        self._timer: threading.Timer | None = None

    def admit(self, kind: Hashable, more: More) -> bool:
        """Whether to write a line of this kind now.

        If not, ``more`` is called once, on another thread or by a later line, with the number of
        lines that were not written.
        """
        now = self._clock()
        with self._lock:
            over = self._take_over(now)
            if kind not in self._kinds and len(self._kinds) >= _KINDS:
                kind = None
            one = self._kinds.setdefault(kind, _Kind(now + self._seconds, more))
            admitted = one.written < self._most
            if admitted:
                one.written += 1
            else:
                one.held_back += 1
                self._tell_later(one.ends_at - now)
        _tell(over)
        return admitted

    def tell(self, *, at_once: bool = False) -> None:
        """Report the lines held back in expired seconds; ``at_once``: all that were held back."""
        with self._lock:
            self._timer = None
            over = self._take_over(float("inf") if at_once else self._clock())
            waiting = [one.ends_at for one in tuple(self._kinds.values()) if one.held_back]
            if waiting:
                self._tell_later(min(waiting) - self._clock())
        _tell(over)

    def _take_over(self, now: float) -> list[_Kind]:
        over = [kind for kind, one in tuple(self._kinds.items()) if one.ends_at <= now]
        taken = (self._kinds.pop(kind, None) for kind in over)
        return [one for one in taken if one is not None]

    def _tell_later(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = threading.Timer(max(0.0, seconds), self.tell)
            self._timer.daemon = True
            with contextlib.suppress(RuntimeError):  # no new thread: the next line reports it
                self._timer.start()
                return
            self._timer = None


def _tell(over: list[_Kind]) -> None:
    for one in over:
        if one.held_back:
            one.more(one.held_back)
