"""How long a write may wait for its turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_UNTIL: ContextVar[float] = ContextVar("secure_server_store_until", default=float("inf"))


@contextmanager
def waiting_at_most(seconds: float) -> Iterator[None]:
    """Have writes of the block wait no longer than that for the write lock, all together.

    A block inside another cannot wait for longer than that one.
    """
    token = _UNTIL.set(min(_UNTIL.get(), time.monotonic() + max(0.0, seconds)))
    try:
        yield
    finally:
        _UNTIL.reset(token)


def waits_until(seconds: float) -> float:
    """Until when (``time.monotonic()``) a write that begins now waits, ``seconds`` at the most."""
    return min(_UNTIL.get(), time.monotonic() + seconds)
