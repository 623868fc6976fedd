"""A circuit breaker: after failures in a row, requests stop for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Circuit:
    """Opens after several failures in a row; then lets one request through per pause as a probe.

    Without it every call would wait for its time-out.
    """

    def __init__(
        self, *, failures: int, pause: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open after ``failures`` failures in a row, for ``pause`` seconds at a time."""
        self._most = failures
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._closed_again_at = 0.0

    def try_pass(self) -> bool:
        """Whether a request may be sent now; its caller must then call ``report``."""
        with self._lock:
            if self._failures < self._most:
                return True
            if self._clock() < self._closed_again_at:
                return False
            self._closed_again_at = self._clock() + self._pause  # one probe at a time
            return True

    def report(self, *, answered: bool) -> None:
        """Record whether the other side answered."""
        with self._lock:
            self._failures = 0 if answered else self._failures + 1
            if self._failures >= self._most:
                self._closed_again_at = self._clock() + self._pause
