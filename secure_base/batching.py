"""A bounded queue, and a thread that writes its items in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

_FULL = "the queue is full"
_LATE = "it was not written in time"


class BatchingWriter(Generic[T]):
    """Hands items to a function on a thread of its own, many at a time.

    It has a thread because the function may block: on a full pipe, a disk, a network. ``put`` never
    blocks; on overflow it drops the item and calls ``dropped``.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[T]], None],
        *,
        most: int,
        at_once: int,
        linger: float,
        dropped: Callable[[int, str], None],
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        """Hold at most ``most`` items, and write at most ``at_once`` together.

        ``linger`` is the seconds for which an item waits for others: a thread that woke for each
        item would take the interpreter from the calls. ``dropped`` gets the number of lost items
        and the reason; if ``write`` raises, its batch is lost. The thread calls ``finish`` after
        the last batch.
        """
        self._write = write
        self._most = most
        self._at_once = at_once
        self._linger = linger
        self._dropped = dropped
        self._finish = finish
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._in_hand = 0
        self._given_up = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item, or drop it."""
        if self._queue.qsize() >= self._most or self._over.is_set():
            self._dropped(1, _FULL)
        else:
            self._queue.put(item)

    def end(self) -> None:
        """Accept no more items, and write the queued ones."""
        if not self._over.is_set():
            self._over.set()
            self._queue.put(None)

    def close(self, until: float) -> None:
        """``end``, and wait for it until ``time.monotonic()`` is this late."""
        self.end()
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive() and not self._given_up:
            self._given_up = True
            # One in the queue is the end, which the thread may have taken already.
            lost = max(0, self._queue.qsize() - 1) + self._in_hand
            if lost:
                self._dropped(lost, _LATE)

    def _run(self) -> None:
        while batch := self._next():
            self._in_hand = len(batch)
            try:
                self._write(batch)
            except Exception as error:  # noqa: BLE001 - `write` may fail in any way
                if not self._given_up:  # else `close` has reported them
                    self._dropped(len(batch), f"{type(error).__name__}: {error}")
            self._in_hand = 0
        self._finish()

    def _next(self) -> list[T]:
        """Wait for an item; return it with those queued soon after, or nothing at the end."""
        first = self._queue.get()
        while first is None:
            if self._queue.empty():
                return []
            # A concurrent `put` passed its check before `end`: write its item first.
            self._queue.put(None)
            first = self._queue.get()
        if self._queue.qsize() < self._at_once:
            self._over.wait(self._linger)
        batch = [first]
        while len(batch) < self._at_once:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is None:
                self._queue.put(None)
                break
            batch.append(item)
        return batch
