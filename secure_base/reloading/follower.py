"""One thread that looks at every source of a process or a server."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

_A_MOMENT = 0.5  # seconds


class Followed(Protocol):
    """What is looked at again and again."""

    def look(self) -> None:
        """See whether the source has changed. Other sources wait for it: no network here."""
        ...


class Follower:
    """Looks at what was added while there is any; what its owner has dropped it drops too."""

    def __init__(
        self,
        name: str,
        failed: Callable[[str], object],
        *,
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``failed`` is told the type of what a look raised; ``interval`` is in seconds."""
        self._name = name
        self._failed = failed
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._followed: weakref.WeakSet[Followed] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._busy_since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """For how long the present look at all of them has taken."""
        since = self._busy_since
        return 0.0 if since is None else self._clock() - since

    def add(self, followed: Followed) -> None:
        """Look at it from now on."""
        with self._lock:
            self._followed.add(followed)
            # In a process that was forked, no thread is alive but the one that forked.
            is_needed = self._thread is None or not self._thread.is_alive()
            if is_needed and not self._over.is_set():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def discard(self, followed: Followed) -> None:
        """Look at it no more; a look under way is not waited for."""
        with self._lock:
            self._followed.discard(followed)

    def close(self) -> None:
        """Stop looking. A look under way is hardly waited for."""
        self._over.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_A_MOMENT)

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            with self._lock:
                found = list(self._followed)
                if not found:
                    self._thread = None
                    return
            self._busy_since = self._clock()
            # No name may hold on to one of them while this thread sleeps.
            while found and not self._over.is_set():
                self._look(found.pop())
            self._busy_since = None

    def _look(self, followed: Followed) -> None:
        try:
            followed.look()
        except Exception as error:  # noqa: BLE001 - the others have to be looked at
            self._failed(type(error).__name__)
