"""A bound on how many threads may wait for a network at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from secure_server.auth.errors import AuthenticatorUnavailable


class Bulkhead:
    """Lets so many in and tells the others to come again: one slow issuer must not take all the
    threads, which everybody else's calls need.
    """

    def __init__(self, threads: int) -> None:
        """Let ``threads`` wait at once."""
        self._free = threading.Semaphore(threads)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Hold a place; raises ``AuthenticatorUnavailable`` where there is none."""
        if not self._free.acquire(blocking=False):
            raise AuthenticatorUnavailable("bulkhead", "Too many authentications wait already.")
        try:
            yield
        finally:
            self._free.release()
