"""Noticing commits, of this process and of others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from secure_server.store.errors import StoreError

__all__ = ["POLL_SECONDS", "Tailer"]

POLL_SECONDS = 0.15
"""Seconds between two looks at the commits of other processes."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Subscriber:
    on_look: Callable[[bool], None]
    seen: Hashable = None


class Tailer:
    """Compares the database's version with the last one, and tells its subscribers of changes.

    ``Database.write`` calls ``look`` after each commit, on the thread that committed. So every
    subscriber in this process has read what a transaction wrote before the caller of the
    transaction continues. A thread looks for commits of other processes every ``interval`` seconds.

    A class because all feeds of a process share the thread: the cost of a look (some microseconds)
    does not grow with the number of waiting streams. The thread starts with the first subscriber
    and ends with ``close``.
    """

    def __init__(self, version: Callable[[], Hashable], *, interval: float = POLL_SECONDS) -> None:
        """``version`` returns a value that differs after every commit, or raises ``StoreError``."""
        self._version = version
        self._interval = interval
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._subscribers: tuple[_Subscriber, ...] = ()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def subscribe(self, on_look: Callable[[bool], None]) -> Callable[[], None]:
        """Call ``on_look`` after every look that could read the version; returns a function that
        ends the subscription.

        The argument tells whether there was a commit since the last call that returned. A
        subscriber that raises an error is told again at the next look. It is called on the tailer's
        thread or on one that has committed, never on two at once. It must not write to the
        database, and must not block for long.
        """
        subscriber = _Subscriber(on_look)
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="store-tailer", daemon=True)
                self._thread.start()

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)

        return unsubscribe

    def look(self) -> None:
        """Look for commits now, and tell the subscribers on this thread.

        It raises no error, so that a transaction that has committed never looks failed. A
        subscriber that could not read the commit is told again at the next look.
        """
        if not self._subscribers:
            return
        with self._looking:
            try:
                # Before the subscribers read: a commit in between is told twice, never missed.
                version = self._version()
            except StoreError:
                return  # Subscribers are not called; `Revocations.is_current` turns false in time.
            for subscriber in self._subscribers:
                _tell(subscriber, version)

    def close(self) -> None:
        """Stop looking and wait for the thread to end. Calling it again does nothing."""
        with self._lock:
            self._closed.set()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._interval):
            self.look()


def _tell(subscriber: _Subscriber, version: Hashable) -> None:
    try:
        subscriber.on_look(subscriber.seen != version)
    except StoreError:
        subscriber.seen = None
    except Exception:  # noqa: BLE001 - one failing subscriber must not stop the others
        subscriber.seen = None
        _log.exception("a subscriber to the commits of the store failed")
    else:
        subscriber.seen = version
