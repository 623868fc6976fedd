"""Noticing commits, whichever process made them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from secure_server.store.errors import StoreError

__all__ = ["POLL_SECONDS", "Tailer"]

POLL_SECONDS = 0.15
"""How long a commit of another process may go unnoticed, in seconds."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Subscriber:
    on_look: Callable[[bool], None]
    seen: Hashable = None


class Tailer:
    """One thread that looks at the database's version and tells its subscribers.

    A class because all feeds of a process share the thread: what a look costs (some microseconds)
    does not grow with the number of streams that wait. The thread starts with the first
    subscriber and ends with ``close``.
    """

    def __init__(self, look: Callable[[], Hashable], *, interval: float = POLL_SECONDS) -> None:
        """``look`` returns something that differs after every commit, or raises ``StoreError``."""
        self._look = look
        self._interval = interval
        self._lock = threading.Lock()
        self._subscribers: tuple[_Subscriber, ...] = ()
        self._thread: threading.Thread | None = None
        self._awake = threading.Event()
        self._closed = False

    def subscribe(self, on_look: Callable[[bool], None]) -> Callable[[], None]:
        """Call ``on_look`` after every look that worked; returns what ends the subscription.

        The argument says whether anything was committed since the last call that returned. A
        subscriber that raises ``StoreError`` is told again at the next look. It runs on the
        tailer's thread and must not wait for long.
        """
        subscriber = _Subscriber(on_look)
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="store-tailer", daemon=True)
                self._thread.start()

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)

        return unsubscribe

    def wake(self) -> None:
        """Look now: this process has committed something."""
        self._awake.set()

    def close(self) -> None:
        """Stop looking and wait for the thread to end. Calling it again does nothing."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        self._awake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._closed:
            self._awake.wait(self._interval)
            self._awake.clear()
            if not self._closed:
                self._tell()

    def _tell(self) -> None:
        try:
            # Before the subscribers read: a commit in between is then told twice, never missed.
            version = self._look()
        except StoreError:
            return  # Whoever depends on fresh news sees by its age that there are none.
        for subscriber in self._subscribers:
            try:
                subscriber.on_look(subscriber.seen != version)
            except StoreError:
                subscriber.seen = None
            except Exception:  # noqa: BLE001  one broken subscriber must not end the others' news
                subscriber.seen = None
                _log.exception("A subscriber to the commits of the store failed")
            else:
                subscriber.seen = version
