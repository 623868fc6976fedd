"""The rules of reloading, without files, threads or values: when to load, and what to tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

SETTLED = 0.8
"""Seconds that a source must have been bad for before that is told: files that are being written
are no news. Short enough for it to be told within two seconds, at one look every 0.4 seconds."""

_LONGEST_PAUSE = 30.0
"""Seconds after which a bad source that does not change is tried again at the latest: what is wrong
may lie elsewhere, or end with time."""

_NEVER = object()


class Log(Protocol):
    """Where reloads are told: ``level`` is ``info``, ``warning`` or ``error``."""

    def __call__(self, level: str, event: str, **values: object) -> None: ...


def silent(level: str, event: str, **values: object) -> None:
    """A ``Log`` that goes nowhere."""


class ReloadStatus:
    """How the reloads of one source went.

    A class of its own, so that all sources have the same rules, however they are loaded: ask
    ``is_due``, load, and say ``succeed`` or ``fail``. ``version`` is whatever differs when the
    source does.
    """

    def __init__(
        self,
        source: str,
        *,
        settled: float = SETTLED,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``source`` is a short, lasting name without secrets: it is a label of metrics.

        ``settled`` is in seconds, ``clock`` too, from anywhere; ``wall`` is in seconds since the
        epoch.
        """
        self.source = source
        self.failures = 0
        """How often it was told that a reload had failed."""
        self.failure = ""
        """Why the source as it is now is not used, in a sentence; empty where it is. It is told
        once it has been so for a moment."""
        self.reason = "it was not loaded yet"
        """What the last attempt failed for; empty where it did not."""
        self.succeeded_at = 0.0
        """When it was loaded last, in seconds since the epoch; 0 for never."""
        self.log: Log = silent
        self._settled = settled
        self._clock = clock
        self._wall = wall
        self._version: object = _NEVER
        self._tries = 0
        self._retry_at = self._tell_at = float("-inf")

    def is_due(self, version: object) -> bool:
        """Whether to load: the source has changed since the last attempt, or that failed a while
        ago: a second, and with every failure more, up to 30 seconds.
        """
        if version != self._version:
            return True
        return bool(self.reason) and self._clock() >= self._retry_at

    def succeed(self, version: object, *, changed: bool, **values: object) -> None:
        """Say that all is well; ``changed`` is whether there is a new value, of which the log has
        ``values``.
        """
        is_news = changed or bool(self.failure)
        self._version = version
        self._tries = 0
        self.reason = self.failure = ""
        self.succeeded_at = self._wall()
        if is_news:
            self.log("info", "reloaded", source=self.source, **values)

    def fail(self, version: object, reason: str) -> None:
        """Say why the source cannot be used, or not all of it, in a sentence without secrets."""
        now = self._clock()
        # Where a failure was told already, the next may be the first half of what mends it.
        if not self._tries or (self.failure and reason != self.reason):
            self._tell_at = now + self._settled
        self._tries = self._tries + 1 if version == self._version else 1
        pause = min(2.0 ** max(self._tries - 2, 0), _LONGEST_PAUSE)
        self._retry_at = self._tell_at if now < self._tell_at else now + pause
        self._version = version
        self.reason = reason
        if now >= self._tell_at and reason != self.failure:
            self.failure = reason
            self.failures += 1
            self.tell()

    def tell(self) -> None:
        """Log the failure, where there is one."""
        if self.failure:
            self.log("warning", f"cannot be {self._what}", source=self.source, reason=self.failure)

    @property
    def warning(self) -> str:
        """The failure as a sentence for operators; empty where there is none."""
        return f"{self.source} cannot be {self._what}: {self.failure}" if self.failure else ""

    @property
    def _what(self) -> str:
        return "reloaded; the last good one stays" if self.succeeded_at else "loaded"
