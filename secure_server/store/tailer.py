"""Noticing commits, of this process and of others."""

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
    """Looks at the database's version, and tells its subscribers whether it has changed.

    ``Database.write`` looks after each commit, on the thread that committed: before the caller of
    a transaction goes on, every subscriber of this process knows what it wrote. Commits of other
    processes are found by one thread, which looks every ``interval`` seconds.

    A class because all feeds of a process share the thread: what a look costs (some microseconds)
    does not grow with the number of streams that wait. The thread starts with the first
    subscriber and ends with ``close``.
    """

    def __init__(self, version: Callable[[], Hashable], *, interval: float = POLL_SECONDS) -> None:
        """``version`` returns something that differs after every commit, or raises
        ``StoreError``.
        """
        self._version = version
        self._interval = interval
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._subscribers: tuple[_Subscriber, ...] = ()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def subscribe(self, on_look: Callable[[bool], None]) -> Callable[[], None]:
        """Call ``on_look`` after every look that worked; returns what ends the subscription.

        The argument says whether anything was committed since the last call that returned. A
        subscriber that raises an error is told again at the next look. It runs on the tailer's
        thread or on one that has committed, never on two at once. It must not write to the
        database, and must not wait for long.
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
        """Look now, and tell the subscribers on this thread.

        Raises nothing: a commit before it is done, whether or not it can be told of. What fails
        here is tried again at the next look.
        """
        if not self._subscribers:
            return
        with self._looking:
            try:
                # Before the subscribers read: a commit in between is then told twice, never missed.
                version = self._version()
            except StoreError:
                return  # A subscriber that needs fresh news sees by their age that there are none.
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
    except Exception:  # noqa: BLE001  one broken subscriber must not end the others' news
        subscriber.seen = None
        _log.exception("A subscriber to the commits of the store failed")
    else:
        subscriber.seen = version
