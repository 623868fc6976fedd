"""A bound on how many threads may wait for a network at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from secure_server.auth.errors import AuthenticatorUnavailable


class Bulkhead:
    """Admits a bounded number of threads and refuses the others at once.

    One slow issuer must not block all threads: calls that need no network need them too.
    """

    def __init__(self, threads: int) -> None:
        """Let at most ``threads`` wait at once."""
        self._free = threading.Semaphore(threads)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Hold a place while waiting. Raises ``AuthenticatorUnavailable`` where none is free."""
        if not self._free.acquire(blocking=False):
            raise AuthenticatorUnavailable(
                "bulkhead", "Too many authentications already wait for their issuers."
            )
        try:
            yield
        finally:
            self._free.release()
