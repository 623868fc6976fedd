"""Queues what a servicer sends itself (``experimental_non_blocking``), to send it in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from secure_server import logs

MOST_UNSENT = 1000
"""The most messages of one stream that wait for its caller; one more ends the call."""


class Outbox:
    """The unsent messages of one stream.

    A class because ``put`` must not block, on any thread. grpcio's health service sends while it
    holds the lock that all its calls need: one caller who reads nothing would block ``Check`` and
    ``Watch`` for all callers, and ``enter_graceful_shutdown``.
    """

    def __init__(
        self,
        send: Callable[[Any], None],
        run: Callable[[Callable[[], None]], None],
        overflow: Callable[[], None],
    ) -> None:
        """``send`` may block; ``run`` runs a function on another thread, later; ``overflow`` is
        called, once, when too many messages wait.
        """
        self._send = send
        self._run = run
        self._overflow = overflow
        self._lock = threading.Lock()  # held for a few look-ups: no code blocks under it
        self._unsent: deque[Any] = deque()
        self._is_sending = False
        self._is_over = False

    def put(self, response: Any) -> None:
        """Send a response after those before it, or the status for None."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = is_full = len(self._unsent) >= MOST_UNSENT
            starts = not is_full and not self._is_sending
            if is_full:
                self._unsent.clear()
            else:
                self._unsent.append(response)
                self._is_sending = True
        if is_full:
            self._overflow()
        elif starts:
            self._run(self._send_all)

    def _send_all(self) -> None:
        while True:
            with self._lock:
                if not self._unsent:
                    self._is_sending = False
                    return
                response = self._unsent.popleft()
            try:
                self._send(response)
            except Exception:  # noqa: BLE001 - grpcio has ended the call, and the servicer has returned
                logs.logger(__name__).exception("a message could not be sent")
