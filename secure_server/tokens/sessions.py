"""Sessions: families of refresh tokens, each good once (RFC 9700, section 4.14.2)."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from secure_server.auth.identity import Identity
from secure_server.store.database import Database
from secure_server.store.schema import revocations, sessions, users
from secure_server.tokens.errors import (
    RefreshRefusedError,
    RefreshReusedError,
    RefreshStolenError,
    SessionError,
    SessionRefusedError,
)
from secure_server.tokens.refresh_tokens import (
    FAMILY_BYTES,
    SALT_BYTES,
    SECRET_BYTES,
    decode,
    encode,
    hashed,
    refused,
    successor,
)
from secure_server.tokens.revocations import LEEWAY_SECONDS, append, append_sessions
from secure_server.tokens.revoked import UNNAMED, Revocation, RevocationKind
from secure_server.tokens.sweeping import BATCH

__all__ = [
    "REPEAT_SECONDS",
    "OpenSession",
    "RefreshRefusedError",
    "RefreshReusedError",
    "RefreshStolenError",
    "Session",
    "SessionError",
    "SessionRefusedError",
    "Sessions",
]

_SUBJECT = "users/"  # and the name: the claim ``sub``

REPEAT_SECONDS = 30.0
"""For which a refresh may be repeated whose answer was lost: three deadlines of our client."""


@dataclass(frozen=True, slots=True)
class Session:
    """A live session with its only good refresh token.

    ``session_id`` is a random UUID. ``refresh_token`` is 43 characters of base64url; it ends at
    ``refresh_expires_at``, seconds since the epoch, unless it is used before. It was alive at
    ``issued_at``: access tokens say that they are of that time, so that a revocation which came
    since then is about them.
    """

    session_id: str
    user_uid: str
    refresh_token: str = field(repr=False)
    refresh_expires_at: float
    issued_at: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """What may be told of a live session. Times are seconds since the epoch."""

    session_id: str
    user_uid: str
    spiffe_id: str
    create_time: float
    last_use_time: float
    expire_time: float


class Sessions:
    """Opens, continues, lists and ends sessions.

    Tokens are stored as SHA-256 only: 160 fresh random bits need no slow hash. Ending a session
    tells the feed of revocations in the same transaction, so that its access tokens die too. Where
    more sessions end than one short transaction can delete, a cut in the feed ends them, and
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
        idle_lifetime: float,
        absolute_lifetime: float,
        sweep: Callable[[], None] = lambda: None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``issuer`` is ours, of whose tokens these are the sessions. Lifetimes are in seconds.

        A session ends ``idle_lifetime`` after its last refresh and ``absolute_lifetime`` after
        the log-in. ``access_token_lifetime`` is the longest that an access token may live: so long
        a session that has expired is kept, for its tokens to be revoked, and so long a revocation.
        ``sweep`` is called where ended sessions are left to be deleted (``Sweeper.wake``).
        """
        self._database = database
        self._issuer = issuer
        self._clock = clock
        self._access_token_lifetime = access_token_lifetime
        self._idle_lifetime = idle_lifetime
        self._absolute_lifetime = absolute_lifetime
        self._sweep = sweep
        self._random_bytes = random_bytes

    def open(
        self, user_uid: str, spiffe_id: str, *, connection: Connection | None = None
    ) -> Session:
        """A new session of an active user, bound to the SPIFFE ID of its client certificate.

        Within the write transaction of ``connection`` where given: that of the log-in, so that
        the session cannot outlive what the log-in was based on. Raises ``SessionRefusedError``.
        """
        if not spiffe_id:
            raise SessionRefusedError("A session needs a client certificate with a SPIFFE ID.")
        now = self._clock()
        family = self._random_bytes(FAMILY_BYTES)
        token = family + self._random_bytes(SECRET_BYTES)
        session_id = str(uuid.UUID(bytes=self._random_bytes(16), version=4))
        end_time = now + self._absolute_lifetime
        expire_time = min(now + self._idle_lifetime, end_time)
        with self._within(connection) as transaction:
            active = select(users.c.name).where(users.c.uid == user_uid, users.c.state == "active")
            name = transaction.scalar(active)
            if name is None:
                raise SessionRefusedError("The user is gone or disabled.")
            # In the second of a cut, but after it: it begins with the next, as its tokens do.
            begins = max(now, self._cut_until(transaction, name, spiffe_id) + 1)
            dead = sessions.c.expire_time <= now - self._access_token_lifetime - LEEWAY_SECONDS
            ids = select(sessions.c.session_id).where(dead).limit(BATCH)
            transaction.execute(delete(sessions).where(sessions.c.session_id.in_(ids)))
            transaction.execute(
                insert(sessions).values(
                    session_id=session_id,
                    user_uid=user_uid,
                    spiffe_id=spiffe_id,
                    family_hash=hashed(family),
                    token_hash=hashed(token),
                    create_time=begins,
                    expire_time=expire_time,
                    end_time=end_time,
                )
            )
        return Session(session_id, user_uid, encode(token), expire_time, begins)

    def rotate(self, refresh_token: str, spiffe_id: str) -> Session:
        """Trade a refresh token for the next one, in one atomic statement.

        A token that was used before, or that comes from another SPIFFE ID, shows that a copy is
        in the wrong hands, and nobody can tell which: the session ends and its owner logs in
        again. But the last token used, if used again within ``REPEAT_SECONDS``, gives the same
        next one: the answer was lost, or two refreshed at once. Who saw a token good that has
        grandchildren by now is merely refused.

        Raises ``RefreshRefusedError``, ``RefreshReusedError`` and ``RefreshStolenError``.
        """
        token = decode(refresh_token)
        family = token[:FAMILY_BYTES]
        with self._database.read() as connection:
            before = self._find(connection, family)
        if before is None:
            # Also what spares the write lock those who only guess.
            raise refused()
        was_good = before.token_hash == hashed(token)
        salt = self._random_bytes(SALT_BYTES)
        with self._database.write() as connection:
            now = self._clock()
            row = self._swap(connection, token, salt, spiffe_id, now)
            if row is not None:
                renewed = encode(successor(token, salt))
                issued_at = max(now, row.create_time)
                return Session(row.session_id, row.user_uid, renewed, row.expire_time, issued_at)
            present = self._find(connection, family)
            if present is None or present.expire_time <= now:
                raise refused()
            stolen = present.spiffe_id != spiffe_id
            again = None if stolen else _repeated(present, token, now)
            if again is not None:
                return Session(
                    present.session_id,
                    present.user_uid,
                    encode(again),
                    present.expire_time,
                    max(now, present.create_time),
                )
            if was_good and not stolen:
                raise refused()
            self._end(connection, present.session_id, now)
        # Only here, after the commit: an error inside would have undone the end.
        error, why = (
            (RefreshStolenError, "came from another SPIFFE ID")
            if stolen
            else (RefreshReusedError, "was used before")
        )
        raise error(
            f"The refresh token {why}. The session has been ended: log in again.",
            session_id=present.session_id,
            user_uid=present.user_uid,
        )

    def find(self, session_id: str) -> OpenSession | None:
        """One that has not been ended; it may have expired, as long as its tokens have not."""
        found = self._list(sessions.c.session_id == session_id, limit=1)
        return found[0] if found else None

    def of_refresh_token(self, text: str) -> OpenSession | None:
        """The session that a refresh token belongs to, this one or one before it; else None."""
        try:
            family = decode(text)[:FAMILY_BYTES]
        except RefreshRefusedError:
            return None
        found = self._list(sessions.c.family_hash == hashed(family), limit=1)
        return found[0] if found else None

    def of_user(
        self, user_uid: str, *, after: tuple[float, str] = (0.0, ""), limit: int
    ) -> Sequence[OpenSession]:
        """Up to ``limit`` live sessions of a user, sorted by the time of the log-in.

        They come ``after`` another's ``create_time`` and ``session_id``.
        """
        order = tuple_(sessions.c.create_time, sessions.c.session_id)
        alive = sessions.c.expire_time > self._clock()
        mine = sessions.c.user_uid == user_uid
        return self._list(mine, alive, order > tuple_(*after), limit=limit)

    def end(self, session_id: str) -> bool:
        """End one session; whether it was alive. Its access tokens are revoked either way."""
        with self._database.write() as connection:
            return self._end(connection, session_id, self._clock())

    def end_all(
        self, connection: Connection, user_uid: str, except_session: str | None = None
    ) -> int:
        """End a user's sessions within a write transaction; returns how many were alive.

        Where they are many, some are left to be deleted: ``sweep`` was called, or call this again
        in another transaction.
        """
        c = sessions.c
        which = [c.user_uid == user_uid]
        if except_session is not None:
            which.append(c.session_id != except_session)
        if not self._are_many(connection, which):
            return self._end_some(connection, which)
        alive = self._alive(connection, which)
        name = connection.scalar(select(users.c.name).where(users.c.uid == user_uid)) or ""
        begun = c.create_time >= self._cut_until(connection, name, "") + 1
        if connection.execute(select(c.session_id).where(*which, begun).limit(1)).first():
            cut = Revocation(self._issuer, RevocationKind.USER, _SUBJECT + name)
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
        """Revoke every token of a user (``iss`` and ``sub``) that was issued until now, whether of
        a session or not; returns how many live sessions were ended.
        """
        cut = Revocation(user.issuer, RevocationKind.USER, user.subject)
        return self._revoke(cut, sessions.c.user_uid == user_uid)

    def revoke_client(self, spiffe_id: str) -> int:
        """Revoke every token of ours that a client (``client_id``) was issued until now, and end
        the sessions that are bound to it; returns how many of these were alive.
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

    def _list(self, *which: ColumnElement[bool], limit: int) -> Sequence[OpenSession]:
        c = sessions.c
        query = (
            select(
                c.session_id,
                c.user_uid,
                c.spiffe_id,
                c.create_time,
                func.coalesce(c.last_use_time, c.create_time),
                c.expire_time,
            )
            .where(*which, ~self._is_cut())
            .order_by(c.create_time, c.session_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [OpenSession(*row) for row in connection.execute(query)]

    def _cut(
        self, connection: Connection, revocation: Revocation, except_session: str | None = None
    ) -> None:
        now = self._clock()
        append(
            connection,
            revocation,
            expire_time=self._forgotten_at(now),
            now=now,
            # The claim `iat` is a whole second. ``Issuer`` begins with the next one.
            issued_until=math.floor(now),
            except_session=except_session,
        )

    def _end_some(self, connection: Connection, which: Sequence[ColumnElement[bool]]) -> int:
        """End up to ``BATCH`` sessions, in as many statements as one takes; how many were alive."""
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
        """End by their IDs those which a cut does not reach: after a cut of their user, a session
        begins in the seconds to come, and one of their client now is about less; and the reverse.
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

    def _swap(
        self, connection: Connection, old: bytes, salt: bytes, spiffe_id: str, now: float
    ) -> Row[Any] | None:
        c = sessions.c
        idle = now + self._idle_lifetime
        return connection.execute(
            update(sessions)
            .where(
                c.family_hash == hashed(old[:FAMILY_BYTES]),
                c.token_hash == hashed(old),
                c.spiffe_id == spiffe_id,
                c.expire_time > now,
                ~self._is_cut(),
            )
            .values(
                token_hash=hashed(successor(old, salt)),
                salt=salt,
                last_use_time=now,
                expire_time=case((c.end_time < idle, c.end_time), else_=idle),
            )
            .returning(c.session_id, c.user_uid, c.expire_time, c.create_time)
        ).one_or_none()

    def _end(self, connection: Connection, session_id: str, now: float) -> bool:
        revocation = Revocation(self._issuer, RevocationKind.SESSION, session_id)
        append(connection, revocation, expire_time=self._forgotten_at(now), now=now)
        gone = delete(sessions).where(sessions.c.session_id == session_id)
        return connection.execute(gone).rowcount == 1

    def _find(self, connection: Connection, family: bytes) -> Row[Any] | None:
        mine = sessions.c.family_hash == hashed(family)
        return connection.execute(select(sessions).where(mine, ~self._is_cut())).one_or_none()

    def _is_cut(self) -> ColumnElement[bool]:
        """Whether a session was ended by a cut, and is still to be deleted."""
        c, cut = sessions.c, revocations.c
        # Said, because the exists() between this and the sessions hides them from SQLAlchemy.
        owner = select(users.c.name).where(users.c.uid == c.user_uid).correlate(sessions)
        common = (
            cut.issuer.in_((self._issuer, UNNAMED)),
            cut.issued_until + 1 > c.create_time,
        )
        of_client = exists().where(
            cut.kind == RevocationKind.CLIENT.value, cut.value == c.spiffe_id, *common
        )
        of_user = exists().where(
            cut.kind == RevocationKind.USER.value,
            cut.value == literal(_SUBJECT) + owner.scalar_subquery(),
            func.coalesce(cut.except_session, "") != c.session_id,
            *common,
        )
        return of_client | of_user

    def _cut_until(self, connection: Connection, name: str, spiffe_id: str) -> float:
        """Until when sessions of a user, and of a client, were ended by cuts; -1 for never."""
        cut = revocations.c
        user = (cut.kind == RevocationKind.USER.value) & (cut.value == _SUBJECT + name)
        client = (cut.kind == RevocationKind.CLIENT.value) & (cut.value == spiffe_id)
        ours = cut.issuer.in_((self._issuer, UNNAMED))
        query = select(func.max(cut.issued_until)).where(ours, user | client)
        until = connection.scalar(query)
        return -1.0 if until is None else until

    def _forgotten_at(self, now: float) -> float:
        return now + self._access_token_lifetime + LEEWAY_SECONDS

    def _within(self, connection: Connection | None) -> AbstractContextManager[Connection]:
        return self._database.write() if connection is None else nullcontext(connection)


def _repeated(present: Row[Any], token: bytes, now: float) -> bytes | None:
    """Return the good token, if ``token`` is the one before it and was used just now."""
    if present.salt is None or now >= present.last_use_time + REPEAT_SECONDS:
        return None
    good = successor(token, present.salt)
    return good if hashed(good) == present.token_hash else None
