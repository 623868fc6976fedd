"""Ending sessions: one, all of a user, or all of a client."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sqlalchemy import ColumnElement, Connection, delete, func, select

from secure_server.auth.identity import Identity
from secure_server.store.database import Database
from secure_server.store.schema import sessions, users
from secure_server.tokens.cuts import SUBJECT, cut_until
from secure_server.tokens.revocations import LEEWAY_SECONDS, append, append_sessions
from secure_server.tokens.revoked import Revocation, RevocationKind
from secure_server.tokens.sweeping import BATCH

__all__ = ["SessionEndings"]


class SessionEndings:
    """Ends sessions, and revokes their access tokens in the same transaction.

    Where more sessions end than one short transaction can delete, a cut in the feed ends them, and
    ``Sweeper`` deletes them afterwards. Every method raises ``StoreError`` where the database
    fails.
    """

    def __init__(
        self,
        database: Database,
        *,
        issuer: str,
        clock: Callable[[], float],
        access_token_lifetime: float,
        sweep: Callable[[], None] = lambda: None,
    ) -> None:
        """``issuer`` is this server's own, to whose tokens the sessions belong.

        ``access_token_lifetime`` is the longest lifetime of an access token, in seconds.
        Revocations are kept for so long, and so are expired sessions, whose tokens may still be
        revoked. ``sweep`` is called where ended sessions are left to be deleted (``Sweeper.wake``).
        """
        self._database = database
        self._issuer = issuer
        self._clock = clock
        self._access_token_lifetime = access_token_lifetime
        self._sweep = sweep

    def end(self, session_id: str) -> bool:
        """End one session; returns whether it was alive. Either way its tokens are revoked."""
        with self._database.write() as connection:
            return self.end_within(connection, session_id)

    def end_within(self, connection: Connection, session_id: str) -> bool:
        """End one session within a write transaction; returns whether it was alive."""
        now = self._clock()
        revocation = Revocation(self._issuer, RevocationKind.SESSION, session_id)
        append(connection, revocation, expire_time=self._forgotten_at(now), now=now)
        gone = delete(sessions).where(sessions.c.session_id == session_id)
        return connection.execute(gone).rowcount == 1

    def forget_expired(self, connection: Connection) -> None:
        """Delete some sessions whose access tokens have all expired, in a write transaction."""
        dead = (
            sessions.c.expire_time <= self._clock() - self._access_token_lifetime - LEEWAY_SECONDS
        )
        ids = select(sessions.c.session_id).where(dead).limit(BATCH)
        connection.execute(delete(sessions).where(sessions.c.session_id.in_(ids)))

    def end_all(
        self, connection: Connection, user_uid: str, except_session: str | None = None
    ) -> int:
        """End a user's sessions within a write transaction; returns how many were alive.

        Of more than ``BATCH`` sessions all are ended, but some are not deleted yet: ``sweep`` has
        been called, or call this again in another transaction.
        """
        c = sessions.c
        which = [c.user_uid == user_uid]
        if except_session is not None:
            which.append(c.session_id != except_session)
        if not self._are_many(connection, which):
            return self._end_some(connection, which)
        alive = self._alive(connection, which)
        name = connection.scalar(select(users.c.name).where(users.c.uid == user_uid)) or ""
        begun = c.create_time >= cut_until(connection, self._issuer, name, "") + 1
        if connection.execute(select(c.session_id).where(*which, begun).limit(1)).first():
            cut = Revocation(self._issuer, RevocationKind.USER, SUBJECT + name)
            self._cut(connection, cut, except_session)
        self._end_later(connection, which)
        self._end_some(connection, which)
        self._sweep()
        return alive

    def end_others(self, user_uid: str, session_id: str) -> int:
        """End all of a user's sessions but one; returns how many were alive."""
        with self._database.write() as connection:
            return self.end_all(connection, user_uid, session_id)

    def revoke_user(self, user_uid: str, user: Identity) -> int:
        """Revoke every token issued to a user (``iss`` and ``sub``) until now, of a session or
        not, and end the user's sessions; returns how many of these were alive.
        """
        cut = Revocation(user.issuer, RevocationKind.USER, user.subject)
        return self._revoke(cut, sessions.c.user_uid == user_uid)

    def revoke_client(self, spiffe_id: str) -> int:
        """Revoke every token that this server issued to a client (``client_id``) until now, and
        end the sessions that are bound to it; returns how many of these were alive.
        """
        cut = Revocation(self._issuer, RevocationKind.CLIENT, spiffe_id)
        return self._revoke(cut, sessions.c.spiffe_id == spiffe_id)

    def _revoke(self, cut: Revocation, which: ColumnElement[bool]) -> int:
        with self._database.write() as connection:
            self._cut(connection, cut)
            if not self._are_many(connection, [which]):
                return self._end_some(connection, [which])
            alive = self._alive(connection, [which])
            self._end_later(connection, [which])
        self._sweep()
        return alive

    def _cut(
        self, connection: Connection, revocation: Revocation, except_session: str | None = None
    ) -> None:
        now = self._clock()
        append(
            connection,
            revocation,
            expire_time=self._forgotten_at(now),
            now=now,
            # The claim `iat` is a whole second; ``Issuer`` gives the next token the next one.
            issued_until=math.floor(now),
            except_session=except_session,
        )

    def _end_some(self, connection: Connection, which: Sequence[ColumnElement[bool]]) -> int:
        """End up to ``BATCH`` sessions in a fixed number of statements; returns how many were
        alive.
        """
        now = self._clock()
        c = sessions.c
        query = select(c.session_id, c.expire_time).where(*which).limit(BATCH)
        found = connection.execute(query).all()
        ids = [row.session_id for row in found]
        if ids:
            append_sessions(
                connection, self._issuer, ids, expire_time=self._forgotten_at(now), now=now
            )
            connection.execute(delete(sessions).where(c.session_id.in_(ids)))
        return sum(row.expire_time > now for row in found)

    def _end_later(self, connection: Connection, which: Sequence[ColumnElement[bool]]) -> None:
        """End by ID those sessions that a cut does not reach, because they begin after it.

        After several cuts of its user within a second, a session begins some seconds in the
        future, and a cut of its client reaches only until now; and the reverse.
        """
        later = sessions.c.create_time >= math.floor(self._clock()) + 1
        while self._end_some(connection, [*which, later]):
            pass

    def _are_many(self, connection: Connection, which: Sequence[ColumnElement[bool]]) -> bool:
        beyond = select(sessions.c.session_id).where(*which).offset(BATCH).limit(1)
        return connection.execute(beyond).first() is not None

    def _alive(self, connection: Connection, which: Sequence[ColumnElement[bool]]) -> int:
        alive = sessions.c.expire_time > self._clock()
        query = select(func.count()).select_from(sessions).where(*which, alive)
        return connection.scalar(query) or 0

    def _forgotten_at(self, now: float) -> float:
        return now + self._access_token_lifetime + LEEWAY_SECONDS
