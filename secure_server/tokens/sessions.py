"""Sessions: families of refresh tokens, each valid once (RFC 9700, section 4.14.2)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, func, insert, select, tuple_, update

from secure_server.store.database import Database
from secure_server.store.schema import sessions, users
from secure_server.tokens.cuts import cut_until, is_cut
from secure_server.tokens.errors import (
    RefreshRefusedError,
    RefreshReusedError,
    RefreshStolenError,
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
from secure_server.tokens.session import OpenSession, Session
from secure_server.tokens.session_endings import SessionEndings

__all__ = ["REPEAT_SECONDS", "Sessions"]

REPEAT_SECONDS = 30.0
"""Seconds in which a refresh whose answer was lost may be repeated: three deadlines of
``secure_client``."""


class Sessions:
    """Opens, renews and lists sessions.

    Tokens are stored as SHA-256 only: 160 fresh random bits need no slow hash. Every method raises
    ``StoreError`` where the database fails.
    """

    def __init__(
        self,
        database: Database,
        endings: SessionEndings,
        *,
        issuer: str,
        clock: Callable[[], float],
        idle_lifetime: float,
        absolute_lifetime: float,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``issuer`` is this server's own, to whose tokens the sessions belong. Lifetimes are in
        seconds.

        A session ends ``idle_lifetime`` after its last refresh and ``absolute_lifetime`` after
        the log-in. ``endings`` ends the session of a refresh token that was misused.
        """
        self._database = database
        self._endings = endings
        self._issuer = issuer
        self._clock = clock
        self._idle_lifetime = idle_lifetime
        self._absolute_lifetime = absolute_lifetime
        self._random_bytes = random_bytes

    def open(
        self, user_uid: str, spiffe_id: str, *, connection: Connection | None = None
    ) -> Session:
        """Open a session of an active user, bound to the SPIFFE ID of its client certificate.

        Give the ``connection`` of the log-in's write transaction, so that no session is opened
        where the password or the user changes meanwhile. Raises ``SessionRefusedError``.
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
                raise SessionRefusedError("The user was deleted or disabled.")
            # A session opened in the second of a cut begins in the next second, as its tokens do.
            begins = max(now, cut_until(transaction, self._issuer, name, spiffe_id) + 1)
            self._endings.forget_expired(transaction)
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
        """Exchange a refresh token for the next one, in one atomic statement.

        A token that was used before, or that comes from another SPIFFE ID, has been copied. The
        server cannot tell the thief from the owner, so it ends the session and the owner logs in
        again. There are two exceptions. The last used token, used again within ``REPEAT_SECONDS``,
        gives the same next token: the answer was lost, or two clients refreshed at once. A token
        that was valid when this call began, and has since been exchanged twice, is only refused.

        Raises ``RefreshRefusedError``, ``RefreshReusedError`` and ``RefreshStolenError``.
        """
        token = decode(refresh_token)
        family = token[:FAMILY_BYTES]
        with self._database.read() as connection:
            before = self._find(connection, family)
        if before is None:
            # This look also keeps callers who guess tokens from taking the write lock.
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
            self._endings.end_within(connection, present.session_id)
        # Raised after the commit: inside the transaction it would roll back the end of the session.
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
        """Return a session that was not ended; it may have expired while its tokens have not."""
        found = self._list(sessions.c.session_id == session_id, limit=1)
        return found[0] if found else None

    def of_refresh_token(self, text: str) -> OpenSession | None:
        """Return the session of a refresh token, current or used; None where there is none."""
        try:
            family = decode(text)[:FAMILY_BYTES]
        except RefreshRefusedError:
            return None
        found = self._list(sessions.c.family_hash == hashed(family), limit=1)
        return found[0] if found else None

    def of_user(
        self, user_uid: str, *, after: tuple[float, str] = (0.0, ""), limit: int
    ) -> Sequence[OpenSession]:
        """Return up to ``limit`` live sessions of a user, sorted by the time of the log-in.

        ``after`` is the ``create_time`` and ``session_id`` of the last session of the page before.
        """
        order = tuple_(sessions.c.create_time, sessions.c.session_id)
        alive = sessions.c.expire_time > self._clock()
        mine = sessions.c.user_uid == user_uid
        return self._list(mine, alive, order > tuple_(*after), limit=limit)

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
            .where(*which, ~is_cut(self._issuer))
            .order_by(c.create_time, c.session_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [OpenSession(*row) for row in connection.execute(query)]

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
                ~is_cut(self._issuer),
            )
            .values(
                token_hash=hashed(successor(old, salt)),
                salt=salt,
                last_use_time=now,
                expire_time=case((c.end_time < idle, c.end_time), else_=idle),
            )
            .returning(c.session_id, c.user_uid, c.expire_time, c.create_time)
        ).one_or_none()

    def _find(self, connection: Connection, family: bytes) -> Row[Any] | None:
        mine = sessions.c.family_hash == hashed(family)
        return connection.execute(select(sessions).where(mine, ~is_cut(self._issuer))).one_or_none()

    def _within(self, connection: Connection | None) -> AbstractContextManager[Connection]:
        return self._database.write() if connection is None else nullcontext(connection)


def _repeated(present: Row[Any], token: bytes, now: float) -> bytes | None:
    """Return the valid token if ``token`` is the one before it and was used just now; else None."""
    if present.salt is None or now >= present.last_use_time + REPEAT_SECONDS:
        return None
    good = successor(token, present.salt)
    return good if hashed(good) == present.token_hash else None
