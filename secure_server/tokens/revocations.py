"""What is not good any more although it has not expired."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, delete, func, insert, select

from secure_server.auth.identity import Identity
from secure_server.auth.local_issuer import LEEWAY, MAX_TOKEN_LIFETIME
from secure_server.auth.principal import Principal
from secure_server.store.database import Database
from secure_server.store.schema import revocations
from secure_server.tokens.errors import RevokedTooOftenError
from secure_server.tokens.revoked import UNNAMED, Entries, Revocation, RevocationKind, Snapshot

__all__ = ["LEEWAY_SECONDS", "Revocation", "RevocationKind", "Revocations", "Snapshot", "append"]

MAX_STALENESS = 60.0
"""Seconds for which the view is believed when the feed cannot be read."""

LEEWAY_SECONDS = 60.0
"""How much longer than the token a revocation is kept: clocks differ."""

_PRUNE_SECONDS = 30.0

_MOST_AHEAD = LEEWAY - 2
"""Seconds by which what is issued next to a user or a client may be of the future: less than what
the door lets pass."""
_FORGET = 1000  # lines at a time, so that the write lock is not held for long


def append(
    connection: Connection,
    revocation: Revocation,
    *,
    expire_time: float,
    now: float,
    issued_until: float | None = None,
    except_session: str | None = None,
) -> None:
    """Add to the feed, in a write transaction, what must be refused until ``expire_time``.

    Adding the same token or session again does nothing, unless it must be refused for longer: an
    issuer may give one ID to two tokens. A user or a client gets a new number, and a later
    ``issued_until``: within one second, too, tokens may have been issued in between. Of a user,
    ``except_session`` goes on. Tokens and sessions that have expired are forgotten on the way, a
    thousand at a time; users and clients by ``Sweeper``.

    Raises ``ValueError`` for what has no issuer or no name: that would be refused of everybody, or
    of nobody; and ``RevokedTooOftenError``.
    """
    issuer, kind, value = revocation
    if not issuer or not value:
        raise ValueError("A revocation needs an issuer and a value.")
    c = revocations.c
    forget(connection, now)
    # A line without an issuer is ours, but for tokens: those may be anybody's, and stay.
    issuers = {issuer} if kind is RevocationKind.JTI else {issuer, UNNAMED}
    present = connection.execute(
        select(c.seq, c.expire_time, c.issued_until).where(
            c.issuer.in_(issuers), c.kind == kind.value, c.value == value
        )
    ).all()
    if issued_until is not None:
        issued_until = max([issued_until, *(row.issued_until + 1 for row in present)])
        # Tokens of the next log-in begin after that, and a door refuses those of the future.
        if issued_until > now + _MOST_AHEAD:
            raise RevokedTooOftenError(
                "These tokens have been revoked many times within seconds. Wait "
                f"{_MOST_AHEAD:.0f} seconds, and revoke again what was issued meanwhile."
            )
    elif any(row.expire_time >= expire_time for row in present):
        return
    for row in present:
        connection.execute(delete(revocations).where(c.seq == row.seq))
    connection.execute(
        insert(revocations).values(
            issuer=issuer,
            kind=kind.value,
            value=value,
            expire_time=expire_time,
            issued_until=issued_until,
            except_session=except_session,
        )
    )


def append_sessions(
    connection: Connection, issuer: str, ids: Sequence[str], *, expire_time: float, now: float
) -> None:
    """Add sessions of one issuer to the feed, as ``append`` does, in as many statements as one."""
    forget(connection, now)
    c = revocations.c
    mine = c.issuer.in_((issuer, UNNAMED)), c.kind == RevocationKind.SESSION.value, c.value.in_(ids)
    connection.execute(delete(revocations).where(*mine, c.expire_time < expire_time))
    known = set(connection.execute(select(c.value).where(*mine)).scalars())
    new = [
        {
            "issuer": issuer,
            "kind": RevocationKind.SESSION.value,
            "value": session_id,
            "expire_time": expire_time,
        }
        for session_id in ids
        if session_id not in known
    ]
    if new:
        connection.execute(insert(revocations), new)


def forget(connection: Connection, now: float) -> None:
    """Forget some tokens and sessions that have expired, in a write transaction."""
    c = revocations.c
    dead = select(c.seq).where(c.expire_time <= now, c.issued_until.is_(None)).limit(_FORGET)
    connection.execute(delete(revocations).where(c.seq.in_(dead)))


class Revocations:
    """The feed of revocations, in memory.

    A class because the door asks at every call: the answer comes from an immutable snapshot, and
    the feed is read only when somebody has committed. ``generation`` differs whenever the
    snapshot does; read it before what is cached under it.
    """

    def __init__(
        self,
        database: Database,
        *,
        issuer: str,
        clock: Callable[[], float],
        max_staleness: float = MAX_STALENESS,
    ) -> None:
        """``issuer`` is ours, of which lines of the feed are that name none.

        ``clock`` gives seconds since the epoch. Nothing is read before ``start``/``refresh``.
        The view is current for ``max_staleness`` seconds after the feed was last read to its end.
        """
        self._database = database
        self._clock = clock
        self._refreshing = threading.Lock()
        self._issuer = issuer
        self._snapshot = Snapshot()
        self._subscribing = threading.Lock()
        self._subscribers: tuple[Callable[[], None], ...] = ()
        self._seen = 0
        self._max_staleness = max_staleness
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

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the token is revoked, or its session, user or client, as far as is known here."""
        return self._snapshot.is_revoked(principal)

    def issued_until(self, identity: Identity, client_id: str) -> float:
        """Of the tokens for these, all that were issued until then are revoked: seconds since the
        epoch, and 0 where none are.
        """
        return self._snapshot.issued_until(identity, client_id)

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` after every change of the view; returns what ends that.

        It runs on the thread that noticed the change and must not wait.
        """

        def tell() -> None:
            on_change()

        with self._subscribing:
            self._subscribers = (*self._subscribers, tell)

        def unsubscribe() -> None:
            with self._subscribing:
                self._subscribers = tuple(each for each in self._subscribers if each is not tell)

        return unsubscribe

    @property
    def is_current(self) -> bool:
        """Whether the feed was read to its end lately."""
        return time.monotonic() - self._read_at <= self._max_staleness

    def start(self) -> None:
        """Load the feed, then follow it. Raises ``StoreError``.

        What a transaction of this process revokes is known here when ``Database.write`` returns,
        and what another process revokes a moment after its commit.
        """
        self._pruned_at = self._clock()  # only what is live is loaded
        self.refresh()
        self._unsubscribe = self._database.tailer.subscribe(self._on_look)
        # A million lines take seconds: what was committed meanwhile has the next numbers.
        self.refresh()

    def close(self) -> None:
        """Stop following. What is known stays known."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def revoke_token(
        self,
        issuer: str,
        token_id: str,
        expires_at: float | None = None,
        *,
        lifetime: float = MAX_TOKEN_LIFETIME,
    ) -> None:
        """Revoke one access token of an issuer (RFC 7009) by its ID.

        ``expires_at`` is when it ends by itself; where that is None, it is taken to be issued now
        and to live for ``lifetime`` seconds, the most that a token of this issuer may.

        Known here when this returns, after ``start``, and to other processes a moment later.
        Nothing happens for one that has ended, or again for the same. Raises ``StoreError``, and
        ``ValueError`` without an issuer or an ID.
        """
        now = self._clock()
        expire_time = (now + lifetime if expires_at is None else expires_at) + LEEWAY_SECONDS
        if expire_time <= now:
            return
        with self._database.write() as connection:
            revocation = Revocation(issuer, RevocationKind.JTI, token_id)
            append(connection, revocation, expire_time=expire_time, now=now)

    def refresh(self) -> None:
        """Read what is new in the feed. Raises ``StoreError``; what is known then stays.

        After ``start``, every transaction of this process has done so when it returns.
        """
        with self._refreshing:
            now = self._clock()
            c = revocations.c
            query = select(
                c.issuer, c.kind, c.value, c.expire_time, c.issued_until, c.except_session
            ).where(
                c.seq > self._seen,
                c.expire_time > now,
                # Older versions wrote a line without a name where a caller had no token.
                c.value != "",
            )
            with self._database.read() as connection:
                newest = connection.scalar(select(func.max(c.seq))) or 0
                # Row by row: all at once, a million would need the memory twice.
                lines = connection.execute(query) if newest > self._seen else ()
                news = Entries.of(lines, ours=self._issuer)
            # Numbers are given under the write lock: below the newest there is no gap to come.
            self._seen = max(self._seen, newest)
            snapshot = self._snapshot
            if news:
                snapshot = snapshot.with_(news)
            # Not at once: every new generation makes the door decide anew.
            if abs(now - self._pruned_at) > _PRUNE_SECONDS:
                self._pruned_at = now
                snapshot = snapshot.live(now)
            changed, self._snapshot = snapshot is not self._snapshot, snapshot
            self._read_at = time.monotonic()
            if changed:
                for tell in self._subscribers:
                    tell()

    def _on_look(self, changed: bool) -> None:  # noqa: FBT001
        if changed or self._clock() - self._pruned_at > _PRUNE_SECONDS:
            self.refresh()
        else:
            self._read_at = time.monotonic()
