"""What is not good any more although it has not expired."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, delete, func, insert, select

from secure_server.store.database import Database
from secure_server.store.schema import revocations

__all__ = ["LEEWAY_SECONDS", "Kind", "Revocations", "Snapshot", "append"]

LEEWAY_SECONDS = 60.0
"""How much longer than the token a revocation is kept: clocks differ."""

_PRUNE_SECONDS = 30.0


class Kind(StrEnum):
    """What was revoked: one access token (``jti``), or all those of a session."""

    JTI = "jti"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything revoked at one moment; replaced whole, never changed.

    Each entry lives only as long as an access token could, so the sets stay small enough to copy.
    """

    generation: int
    tokens: frozenset[str]
    sessions: frozenset[str]

    def is_revoked(self, token_id: str, session_id: str) -> bool:
        """Whether the token or its session is revoked. Two look-ups, no lock."""
        return token_id in self.tokens or session_id in self.sessions


def append(
    connection: Connection, kind: Kind, value: str, *, expire_time: float, now: float
) -> None:
    """Add to the feed, in a write transaction, what must be refused until ``expire_time``.

    Adding the same thing again does nothing. What has expired is forgotten on the way.
    """
    c = revocations.c
    connection.execute(delete(revocations).where(c.expire_time <= now))
    present = select(c.seq).where(c.kind == kind.value, c.value == value)
    if connection.execute(present).first() is None:
        connection.execute(
            insert(revocations).values(kind=kind.value, value=value, expire_time=expire_time)
        )


class Revocations:
    """The feed of revocations, in memory.

    A class because the door asks at every call: the answer comes from an immutable snapshot, and
    the feed is read only when somebody has committed. ``generation`` differs whenever the
    snapshot does; read it before what is cached under it.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds since the epoch. Nothing is read before ``start``/``refresh``."""
        self._database = database
        self._clock = clock
        self._refreshing = threading.Lock()
        self._snapshot = Snapshot(0, frozenset(), frozenset())
        self._expiry: dict[tuple[Kind, str], float] = {}
        self._seen = 0
        self._read_at = float("-inf")
        self._pruned_at = float("-inf")
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The present one."""
        return self._snapshot

    @property
    def generation(self) -> int:
        """That of the present snapshot."""
        return self._snapshot.generation

    def is_revoked(self, token_id: str, session_id: str) -> bool:
        """Whether the token (``jti``) or its session is revoked, as far as is known here."""
        return self._snapshot.is_revoked(token_id, session_id)

    def age(self, now: float) -> float:
        """Seconds since the feed was known to be read to its end; infinite before the first time.

        ``now`` is of the clock that was handed in.
        """
        return max(0.0, now - self._read_at)

    def start(self) -> None:
        """Load the feed, then follow it in the background. Raises ``StoreError``."""
        self.refresh()
        self._unsubscribe = self._database.tailer.subscribe(self._on_look)

    def close(self) -> None:
        """Stop following. What is known stays known."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def revoke_token(self, token_id: str, expires_at: float) -> None:
        """Revoke one access token (RFC 7009); ``expires_at`` is when it ends by itself.

        Known here when this returns, and to other processes a moment later. Nothing happens for
        one that has ended, or again for the same. Raises ``StoreError``.
        """
        now = self._clock()
        expire_time = expires_at + LEEWAY_SECONDS
        if expire_time <= now:
            return
        with self._database.write() as connection:
            append(connection, Kind.JTI, token_id, expire_time=expire_time, now=now)
        self.refresh()

    def refresh(self) -> None:
        """Read what is new in the feed. Raises ``StoreError``; what is known then stays.

        Call it after a transaction of one's own that ended a session, to know at once.
        """
        with self._refreshing:
            now = self._clock()
            c = revocations.c
            query = select(c.kind, c.value, c.expire_time).where(
                c.seq > self._seen, c.expire_time > now
            )
            with self._database.read() as connection:
                newest = connection.scalar(select(func.max(c.seq))) or 0
                rows = connection.execute(query).all() if newest > self._seen else []
            # Numbers are given under the write lock: below the newest there is no gap to come.
            self._seen = max(self._seen, newest)
            new = {(Kind(row.kind), row.value): row.expire_time for row in rows}
            self._expiry.update(new)
            if new or self._drop_expired(now):
                self._publish()
            self._read_at = now

    def _on_look(self, changed: bool) -> None:  # noqa: FBT001
        if changed or self._clock() - self._pruned_at > _PRUNE_SECONDS:
            self.refresh()
        else:
            self._read_at = self._clock()

    def _drop_expired(self, now: float) -> bool:
        # Not at once: every new generation makes the door decide anew.
        if abs(now - self._pruned_at) <= _PRUNE_SECONDS:
            return False
        self._pruned_at = now
        live = {key: expires for key, expires in self._expiry.items() if expires > now}
        dropped = len(live) < len(self._expiry)
        self._expiry = live
        return dropped

    def _publish(self) -> None:
        self._snapshot = Snapshot(
            self._snapshot.generation + 1,
            frozenset(value for kind, value in self._expiry if kind is Kind.JTI),
            frozenset(value for kind, value in self._expiry if kind is Kind.SESSION),
        )
