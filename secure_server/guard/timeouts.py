"""A bound on how long admitted callers may keep threads waiting for their one request message."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from secure_server.guard.refusal import Refusal, RefusalReason

_LOOK_EVERY = 1.0  # seconds
_SOON = 0.1  # seconds in which the message of an honest caller has come, on most networks
_FAIR = 16  # messages that one peer may keep us waiting for while threads are scarce
_DISTRUST = 10.0  # seconds in which a peer that had more gets no patience


_Waiting = tuple[float, str, Any]
"""Since when, which peer, and the call's context. Not named: that takes four times as long to make,
and every call makes one."""


class RequestTimeouts:
    """Ends calls whose message does not come.

    Whoever opens unary calls and stays silent occupies a thread with each. Alone that is bounded by
    a time-out; when half of the threads wait, the peers who keep them waiting lose these calls, and
    for a while have few at once and little time for each: one certificate cannot hold the door
    shut. A watch beside the calls costs each of them two look-ups instead of a timer.
    """

    def __init__(self, seconds: float, *, threads: int) -> None:
        """Wait ``seconds`` for a message, and less where half of ``threads`` wait."""
        self._seconds = seconds
        self._scarce = max(1, threads // 2)
        self._waiting: dict[int, _Waiting] = {}
        self._distrusted: dict[str, float] = {}
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="timeouts", daemon=True)
        self._thread.start()

    def wait(self, requests: Iterator[bytes], context: Any, peer: str) -> bytes | None:
        """Return the first message, None where there is none; ``context.cancel()`` ends the wait
        where it must.

        Raises ``Refusal`` for a peer that has too many waiting already.
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
            # Distrusted peers are looked at often, so that they keep no thread for long.
            if self._wake.wait(_SOON if self._distrusted else _LOOK_EVERY) and not self._closed:
                self._wake.clear()
                time.sleep(_SOON)  # who is honest gets the time for the message to come
                self._relieve()
            self._give_up()

    def _give_up(self) -> None:
        now = time.monotonic()
        for since, peer, context in tuple(self._waiting.values()):
            patience = _SOON if peer in self._distrusted else self._seconds
            if since < now - patience:
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
