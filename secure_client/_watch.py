"""One thread looks at the files of every channel of this process."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Protocol

_logger = logging.getLogger("secure_client")

# How often the files are looked at, in seconds: three `stat`s a channel.
LOOK_EVERY = 1.0


class Watched(Protocol):
    def glance(self) -> None:
        """See whether something has changed, and have it attended to elsewhere."""
        ...


class Watch:
    """Watches while there is something to watch; a channel that is forgotten is so here too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._thread: threading.Thread | None = None

    def add(self, watched: Watched) -> None:
        with self._lock:
            self._watched.add(watched)
            # Of a process that was forked nothing but the thread that forked is alive.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="secure_client files", daemon=True
                )
                self._thread.start()

    def discard(self, watched: Watched) -> None:
        with self._lock:
            self._watched.discard(watched)

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_EVERY)
            with self._lock:
                found = list(self._watched)
                if not found:
                    self._thread = None
                    return
            while found:
                _glance(found.pop())


def _glance(watched: Watched) -> None:
    try:
        watched.glance()
    except Exception as error:  # noqa: BLE001 - the others have to be looked at
        _logger.warning("the client's files cannot be looked at: %s", type(error).__name__)


WATCH = Watch()
