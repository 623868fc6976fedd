"""Noticing that files have changed, whoever changed them and however."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from secure_server import logs

INTERVAL = 0.4
"""Seconds between two looks: what a change ends must have ended within a second."""

Signature = tuple[object, ...]


class Watch:
    """Looks at files again and again, on a thread of its own, and says when they have changed.

    What is looked at is what a name leads to: so a file that is written over, one that is renamed
    into its place, and the symbolic links that Kubernetes swaps are all the same. A folder stands
    for the files in it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        changed: Callable[[], bool],
        *,
        each_time: Callable[[], None] = lambda: None,
    ) -> None:
        """Call ``changed`` when any of ``paths`` has; while it returns False it is called again at
        every look, for a file may have been half written. ``each_time`` is called at every look.
        """
        self._paths = tuple(paths)
        self._changed = changed
        self._each_time = each_time
        self._seen = self._look()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        again = False
        while not self._over.wait(INTERVAL):
            try:
                seen = self._look()
                if again or seen != self._seen:
                    self._seen = seen
                    again = not self._changed()
                self._each_time()
            except Exception:  # noqa: BLE001 - whoever watches goes on watching
                logs.logger(__name__).exception("a watch failed", paths=[*map(str, self._paths)])

    def _look(self) -> Signature:
        return tuple(_signature(path) for path in self._paths)


def _signature(path: Path) -> Signature:
    try:
        if path.is_dir():
            return tuple((entry.name, _signature(entry)) for entry in sorted(path.iterdir()))
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
