"""The feed of revocations: what is revoked although it has not expired."""

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
"""Seconds for which the view counts as current while the feed cannot be read."""

LEEWAY_SECONDS = 60.0
"""How much longer than the token a revocation is kept: clocks differ."""

_PRUNE_SECONDS = 30.0

_MOST_AHEAD = LEEWAY - 2
"""Most seconds that the ``iat`` of the next token of a user or a client may be in the future: less
than the leeway of the guard."""
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
    """Add a revocation to the feed, in a write transaction; it holds until ``expire_time``.

    Adding the same token or session again does nothing, unless the new one holds longer: an issuer
    may give one ID to two tokens. Adding the same user or client again replaces the line by one
    with a new number and a later ``issued_until``, even within one second: tokens may have been
    issued in between. ``except_session`` is the one session of a user that is not revoked. Each
    call deletes up to a thousand expired lines of tokens and sessions; ``Sweeper`` deletes those of
    users and clients.

    Raises ``ValueError`` for a revocation without an issuer or a value, which would concern the
    tokens of every issuer, or no token; and ``RevokedTooOftenError``.
    """
    issuer, kind, value = revocation
    if not issuer or not value:
        raise ValueError("A revocation needs an issuer and a value.")
    c = revocations.c
    forget(connection, now)
    # A line without an issuer is of this server, except that of a token: it may be any
    # issuer's, so it stays.
    issuers = {issuer} if kind is RevocationKind.JTI else {issuer, UNNAMED}
    present = connection.execute(
        select(c.seq, c.expire_time, c.issued_until).where(
            c.issuer.in_(issuers), c.kind == kind.value, c.value == value
        )
    ).all()
    if issued_until is not None:
        issued_until = max([issued_until, *(row.issued_until + 1 for row in present)])
        # Tokens of the next log-in are issued after that, and the guard refuses those of the
        # future.
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
    """Add many sessions to the feed, as ``append`` adds one, in the same number of statements."""
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
    """Delete some lines of expired tokens and sessions, in a write transaction."""
    c = revocations.c
    dead = select(c.seq).where(c.expire_time <= now, c.issued_until.is_(None)).limit(_FORGET)
    connection.execute(delete(revocations).where(c.seq.in_(dead)))


class Revocations:
    """The feed of revocations, in memory.

    A class because the guard asks it at every call: the answer comes from an immutable snapshot,
    and the feed is read only after commits to the database. ``generation`` differs whenever the
    snapshot does; read it before you compute what you cache under it.
    """

    def __init__(
        self,
        database: Database,
        *,
        issuer: str,
        clock: Callable[[], float],
        max_staleness: float = MAX_STALENESS,
    ) -> None:
        """``issuer`` is this server's own; lines of the feed without an issuer belong to it.

        ``clock`` gives seconds since the epoch. Nothing is read before ``start`` or ``refresh``.
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
        """The current snapshot."""
        return self._snapshot

    @property
    def generation(self) -> int:
        """The number of the current snapshot."""
        return self._snapshot.generation

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the token, its session, user or client is revoked, by the current snapshot."""
        return self._snapshot.is_revoked(principal)

    def issued_until(self, identity: Identity, client_id: str) -> float:
        """Return until when the tokens issued to an identity and a client are revoked, in seconds
        since the epoch; 0 where none are.
        """
        return self._snapshot.issued_until(identity, client_id)

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` after every change of the snapshot; returns a function that ends the
        subscription.

        It runs on the thread that read the change, and must not block.
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
        """Whether the feed was read to its end within the last ``max_staleness`` seconds."""
        return time.monotonic() - self._read_at <= self._max_staleness

    def start(self) -> None:
        """Load the feed, then follow it. Raises ``StoreError``.

        What a transaction of this process revokes is known here when ``Database.write`` returns,
        and what another process revokes a moment after its commit.
        """
        self._pruned_at = self._clock()  # `refresh` loads only what has not expired
        self.refresh()
        self._unsubscribe = self._database.tailer.subscribe(self._on_look)
        # A million lines take seconds to load: read what was committed meanwhile.
        self.refresh()

    def close(self) -> None:
        """Stop following the feed. The snapshot stays as it is."""
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

        ``expires_at`` is when it expires, in seconds since the epoch. Where that is None, the token
        is assumed to live for ``lifetime`` seconds from now, the longest lifetime of its issuer.

        After ``start``, this process knows of it when this returns, and others a moment later. A
        token that has expired or is already revoked is left as it is. Raises ``StoreError``, and
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
        """Read the new lines of the feed. Raises ``StoreError``, and the snapshot stays.

        After ``start`` this happens in every write transaction of this process before it returns.
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
                # Row by row: a million at once would need twice the memory.
                lines = connection.execute(query) if newest > self._seen else ()
                news = Entries.of(lines, ours=self._issuer)
            # Numbers are given under the write lock: no lower number is committed later.
            self._seen = max(self._seen, newest)
            snapshot = self._snapshot
            if news:
                snapshot = snapshot.with_(news)
            # Not every time: each new generation makes the guard decide about cached calls again.
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
