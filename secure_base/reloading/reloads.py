"""Every source that a server reloads: looked at, and told of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from secure_base.reloading.follower import Followed, Follower
from secure_base.reloading.status import Log, ReloadStatus, silent

INTERVAL = 0.4
"""Seconds between two looks: what a change ends must have ended within a second."""

_LONGEST_LABEL = 200
_HANGS = 10.0
"""Seconds: no file that is on this machine takes so long to be read."""


class Source(Followed, Protocol):
    """What is followed: a ``Reloaded``, or what has one inside."""

    @property
    def status(self) -> ReloadStatus:
        """How its reloads went."""
        ...


class Reloads:
    """The sources of one server, by their names, which are unique.

    A class with a thread: it looks at the files of what it follows. Where a program shows its
    health, it shows ``warnings`` and ``statuses``.
    """

    def __init__(self, log: Log = silent, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``log`` is told of each reload, and of each failure once; ``clock`` is in seconds."""
        self._log = log
        self._lock = threading.Lock()
        self._statuses: dict[str, ReloadStatus] = {}
        self._followed: list[Followed] = []
        self._is_started = False
        self._follower = Follower("reloads", self._failed, interval=INTERVAL, clock=clock)

    @property
    def statuses(self) -> Mapping[str, ReloadStatus]:
        """How the reloads of each source went, by the source's name."""
        with self._lock:
            return dict(self._statuses)

    @property
    def warnings(self) -> list[str]:
        """What an operator should see to, in sentences."""
        found = [status.warning for status in self.statuses.values() if status.warning]
        if (seconds := self._follower.busy_seconds) > _HANGS:
            found.append(
                f"Looking at the files that are followed has taken {seconds:.0f} seconds so far: "
                "until it ends, no file is reloaded. Is one of them on a file system that hangs?"
            )
        return found

    def add(self, status: ReloadStatus) -> Callable[[], None]:
        """Show how the reloads of a source go which is not looked at here; return what ends that.

        A name that is taken gets a number.
        """
        with self._lock:
            name = wanted = status.source[:_LONGEST_LABEL]
            number = 1
            while name in self._statuses:
                number += 1
                name = f"{wanted} #{number}"
            self._statuses[name] = status
            status.source, status.log = name, self._log
        status.tell()

        def remove() -> None:
            with self._lock:
                self._statuses.pop(name, None)

        return remove

    def follow(self, source: Source) -> Callable[[], None]:
        """Look at a source, from ``start`` on, and show how its reloads go; return what ends it."""
        remove = self.add(source.status)
        with self._lock:
            self._followed.append(source)
            if self._is_started:
                self._follower.add(source)

        def unfollow() -> None:
            remove()
            self._follower.discard(source)
            with self._lock:
                if source in self._followed:
                    self._followed.remove(source)

        return unfollow

    def start(self) -> None:
        """Begin to look, on a thread; subscribe before, so that no change is missed."""
        with self._lock:
            self._is_started = True
            for source in self._followed:
                self._follower.add(source)

    def look(self) -> None:
        """Look at all that is followed, once, on this thread."""
        with self._lock:
            found = list(self._followed)
        for source in found:
            source.look()

    def close(self) -> None:
        """Stop looking. A look under way is hardly waited for."""
        self._follower.close()

    def _failed(self, error: str) -> None:
        self._log("error", "a look at files that are followed failed", error=error)
