"""Bounds how long admitted callers may block threads by not sending their request message."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from secure_server.guard.refusal import Refusal, RefusalReason

_LOOK_EVERY = 1.0  # seconds
_SOON = 0.1  # seconds in which the message of an honest caller has come, on most networks
_FAIR = 16  # silent calls of one peer while threads are scarce
_DISTRUST = 10.0  # seconds in which a peer that had more gets the short time-out


_Waiting = tuple[float, str, Any]
"""Start time, peer, and the call's context. A plain tuple: a named one takes four times as long to
make, on every call."""


class RequestTimeouts:
    """Ends calls whose message does not come.

    A unary call without a request message blocks a thread. A time-out bounds that; when half of the
    threads wait, the peers with the most silent calls lose them, and for a while may have few at
    once and with a short time-out: one certificate cannot block all threads. One watching thread
    costs a call two look-ups instead of a timer.
    """

    def __init__(self, seconds: float, *, threads: int) -> None:
        """Wait ``seconds`` for a message, and less while half of ``threads`` wait."""
        self._seconds = seconds
        self._scarce = max(1, threads // 2)
        self._waiting: dict[int, _Waiting] = {}
        self._distrusted: dict[str, float] = {}
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="timeouts", daemon=True)
        self._thread.start()

    def wait(self, requests: Iterator[bytes], context: Any, peer: str) -> bytes | None:
        """Return the first message, None where the caller sends none.

        A time-out calls ``context.cancel()``. Raises ``Refusal`` for a peer with too many silent
        calls.
        """
        waiting = self._waiting
        if self._distrusted and self._is_hoarding(peer):
            raise Refusal(RefusalReason.SILENT, "The peer keeps too many calls silent.")
        key = id(context)
        waiting[key] = (time.monotonic(), peer, context)
        if len(waiting) > self._scarce:
            self._wake.set()
        try:
            return next(requests, None)
        finally:
            del waiting[key]

    def close(self) -> None:
        """Stop watching."""
        self._closed = True
        self._wake.set()
        self._thread.join()

    def _is_hoarding(self, peer: str) -> bool:
        if peer not in self._distrusted:
            return False
        return sum(one == peer for _, one, _ in tuple(self._waiting.values())) >= _FAIR

    def _watch(self) -> None:
        while not self._closed:
            # Distrusted peers are checked often, so that they block no thread for long.
            if self._wake.wait(_SOON if self._distrusted else _LOOK_EVERY) and not self._closed:
                self._wake.clear()
                time.sleep(_SOON)  # time for honest callers' messages to come
                self._relieve()
            self._give_up()

    def _give_up(self) -> None:
        now = time.monotonic()
        for since, peer, context in tuple(self._waiting.values()):
            seconds = _SOON if peer in self._distrusted else self._seconds
            if since < now - seconds:
                context.cancel()
        for peer, until in tuple(self._distrusted.items()):
            if until < now:
                del self._distrusted[peer]

    def _relieve(self) -> None:
        now = time.monotonic()
        if len(self._waiting) <= self._scarce:
            return
        waiting = tuple(self._waiting.values())
        silent = Counter(peer for since, peer, _ in waiting if since < now - _SOON)
        for peer, calls in silent.items():
            if calls > _FAIR:
                self._distrusted[peer] = now + _DISTRUST
