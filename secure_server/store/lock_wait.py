"""How long a write may wait for its turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FOREVER = float("inf")


class _Wait:
    """How long a block, and the one around it, may still wait."""

    __slots__ = ("left", "outer", "until")

    def __init__(self, seconds: float, until: float, outer: _Wait | None) -> None:
        self.left = seconds
        self.until = until
        self.outer = outer


_WAIT: ContextVar[_Wait | None] = ContextVar("secure_server_store_lock_wait", default=None)


@contextmanager
def waiting_at_most(seconds: float, *, until: float = _FOREVER) -> Iterator[None]:
    """Limit how long all writes of the block together wait for the write lock: ``seconds`` at the
    most, and not beyond ``until`` (``time.monotonic()``).

    Only waiting for the lock counts, not the time that a log-in waits for its password to be
    hashed. An inner block cannot wait longer than the block around it.
    """
    outer = _WAIT.get()
    if outer is not None:
        seconds, until = min(seconds, outer.left), min(until, outer.until)
    token = _WAIT.set(_Wait(seconds, until, outer))
    try:
        yield
    finally:
        _WAIT.reset(token)


def waits_until(seconds: float) -> float:
    """Return until when (``time.monotonic()``) a write that begins now may wait, for ``seconds`` at
    the most.
    """
    now, wait = time.monotonic(), _WAIT.get()
    if wait is None:
        return now + seconds
    return min(now + max(0.0, min(seconds, wait.left)), wait.until)


def waited(seconds: float) -> None:
    """Subtract the ``seconds`` that a write has waited from what the block may still wait."""
    wait = _WAIT.get()
    while wait is not None:
        wait.left -= seconds
        wait = wait.outer
