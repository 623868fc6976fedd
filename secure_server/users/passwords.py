"""Password hashes: Argon2id (RFC 9106), in a bounded pool of threads."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from secure_server.users.errors import OverloadedError
from secure_server.users.password_rules import encode_password

__all__ = ["Passwords"]

T = TypeVar("T")

_PHC: Final = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,8}),t=([1-9][0-9]{0,3}),p=([1-9][0-9]{0,3})"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)
_SALT_BYTES = 16
_HASH_BYTES = 32

# The most work that a stored hash may demand. An attacker who can write a hash into the store must
# not be able to stop the server with it; every published recommendation for servers demands less.
_MOST_MEMORY_KIB = 256 * 1024
_MOST_WORK_KIB = 1024 * 1024  # memory times passes
_MOST_LANES = 16


@dataclass(frozen=True, slots=True)
class _Cost:
    memory_kib: int
    iterations: int
    lanes: int


# OWASP Password Storage Cheat Sheet (2025): m=47104 (46 MiB), t=1, p=1.
_OWASP = _Cost(47104, 1, 1)
_WEAK = _Cost(64, 1, 1)


class Passwords:
    """Computes and verifies password hashes, a few at a time.

    A class because of the pool: each hash takes 46 MiB and about a tenth of a second of a core, so
    ``workers`` bounds the memory and ``waiting`` the delay. A call beyond these bounds is refused
    at once (``OverloadedError``). Hashes are PHC strings.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        waiting: int = 32,
        cpus: Collection[int] | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        weak_hashes_for_tests: bool = False,
    ) -> None:
        """Up to ``workers`` hashes are computed at once and ``waiting`` more wait for their turn.

        ``cpus`` are the cores that hashing may use. Where this process is pinned to one core, give
        the set from before it was pinned: only the caller knows it, and the kernel would also grant
        cores that an operator has withheld. With None the threads use the cores of the process.
        """
        self._cost = _WEAK if weak_hashes_for_tests else _OWASP
        self._random_bytes = random_bytes
        self._cpus = None if cpus is None else frozenset(cpus)
        self._places = threading.BoundedSemaphore(workers + waiting)
        self._pool = ThreadPoolExecutor(workers, "passwords", initializer=self._settle)

    def hash(self, password: str) -> str:
        """Return the PHC string to store, with a random salt.

        Raises ``InvalidArgumentError`` (too long) and ``OverloadedError``.
        """
        encoded = encode_password(password)
        hasher = self._hasher(self._random_bytes(_SALT_BYTES))
        return self._run(lambda: hasher.derive_phc_encoded(encoded))

    def verify(self, stored: str | None, password: str) -> bool:
        """Whether ``stored`` is a hash of this password.

        With None, for a user who does not exist or may not log in, it does the same work and
        returns False. So it does for a hash that is not Argon2id or demands too much work, which is
        not computed. Raises ``InvalidArgumentError`` (too long) and ``OverloadedError``.
        """
        encoded = encode_password(password)
        usable = stored if stored is not None and _is_sane(stored) else None
        return self._run(lambda: self._check(usable, encoded))

    def needs_rehash(self, stored: str) -> bool:
        """Whether this hash has other parameters than new hashes get."""
        return not stored.startswith(self._prefix())

    def close(self) -> None:
        """Finish the hashes that were begun, and end the threads."""
        self._pool.shutdown()

    def _run(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise OverloadedError("Too many log-ins at this moment. Try again in some seconds.")
        try:
            try:
                future = self._pool.submit(work)
            except RuntimeError:  # The pool was shut down.
                raise OverloadedError("The server is stopping. Try again elsewhere.") from None
            return future.result()
        finally:
            self._places.release()

    def _check(self, stored: str | None, encoded: bytes) -> bool:
        against = self._decoy() if stored is None else stored
        try:
            Argon2id.verify_phc_encoded(encoded, against)
        except InvalidKey:
            return False
        # The decoy matches no password (2^-256), and even a match would not log in.
        return stored is not None

    def _decoy(self) -> str:
        """Return a hash that matches no password and costs as much to verify as a real one."""
        return f"{self._prefix()}{'A' * 22}${'A' * 43}"

    def _prefix(self) -> str:
        cost = self._cost
        return f"$argon2id$v=19$m={cost.memory_kib},t={cost.iterations},p={cost.lanes}$"

    def _hasher(self, salt: bytes) -> Argon2id:
        return Argon2id(
            salt=salt,
            length=_HASH_BYTES,
            iterations=self._cost.iterations,
            lanes=self._cost.lanes,
            memory_cost=self._cost.memory_kib,
        )

    def _settle(self) -> None:
        # 0 is the calling thread, not the process. A failure makes hashing slower, not wrong.
        if self._cpus and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._cpus)


def _is_sane(stored: str) -> bool:
    match = _PHC.fullmatch(stored)
    if match is None:
        return False
    memory, iterations, lanes = map(int, match.groups()[:3])
    return (
        8 * lanes <= memory <= _MOST_MEMORY_KIB
        and memory * iterations <= _MOST_WORK_KIB
        and lanes <= _MOST_LANES
    )
