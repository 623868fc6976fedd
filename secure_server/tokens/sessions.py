"""Sessions: families of refresh tokens, each good once (RFC 9700, section 4.14.2)."""

from __future__ import annotations

import hashlib
import os
import uuid
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sqlalchemy import Connection, Row, case, delete, insert, select, update

from secure_server.store.database import Database
from secure_server.store.schema import sessions, users
from secure_server.tokens.revocations import LEEWAY_SECONDS, Kind, append

__all__ = [
    "RefreshRefusedError",
    "RefreshReusedError",
    "RefreshStolenError",
    "Session",
    "SessionError",
    "SessionRefusedError",
    "Sessions",
]

# A refresh token is 256 random bits. The first 96 stay the same in a family, so that a used token
# is recognised without keeping every one; 160 are new each time, which is what RFC 6749, section
# 10.10, asks for even against somebody who knows the rest.
_FAMILY_BYTES = 12
_SECRET_BYTES = 20
_TOKEN_CHARACTERS = 43


class SessionError(Exception):
    """A session was not opened or not continued. To the caller all are UNAUTHENTICATED."""

    code: ClassVar[str] = "SESSION_ERROR"


class SessionRefusedError(SessionError):
    """The user is gone or disabled."""

    code = "SESSION_REFUSED"


class RefreshRefusedError(SessionError):
    """The refresh token is unknown or expired, its session has ended, or another refresh with
    the same token, begun at the same time, was faster. The session is left as it is.
    """

    code = "REFRESH_REFUSED"


class _MisusedError(SessionError):
    """The session has been ended. ``session_id`` and ``user_uid`` are for the audit."""

    def __init__(self, message: str, *, session_id: str, user_uid: str) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.user_uid = user_uid


class RefreshReusedError(_MisusedError):
    """The refresh token had been used: it is in two hands. The session has been ended."""

    code = "REFRESH_TOKEN_REUSED"


class RefreshStolenError(_MisusedError):
    """The refresh token came from another SPIFFE ID. The session has been ended."""

    code = "REFRESH_TOKEN_STOLEN"


@dataclass(frozen=True, slots=True)
class Session:
    """A live session with its only good refresh token.

    ``session_id`` is a random UUID. ``refresh_token`` is 43 characters of base64url; it ends at
    ``refresh_expires_at``, seconds since the epoch, unless it is used before.
    """

    session_id: str
    user_uid: str
    refresh_token: str = field(repr=False)
    refresh_expires_at: float


class Sessions:
    """Opens, continues and ends sessions.

    Tokens are stored as SHA-256 only: 160 fresh random bits need no slow hash. Ending a session
    tells the feed of revocations in the same transaction, so that its access tokens die too.
    Every method raises ``StoreError`` where the database fails.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float],
        access_token_lifetime: float,
        idle_lifetime: float,
        absolute_lifetime: float,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Lifetimes are in seconds.

        A session ends ``idle_lifetime`` after its last refresh and ``absolute_lifetime`` after
        the log-in. ``access_token_lifetime`` is how long a revocation must be remembered.
        """
        self._database = database
        self._clock = clock
        self._access_token_lifetime = access_token_lifetime
        self._idle_lifetime = idle_lifetime
        self._absolute_lifetime = absolute_lifetime
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
        family = self._random_bytes(_FAMILY_BYTES)
        token = family + self._random_bytes(_SECRET_BYTES)
        session_id = str(uuid.UUID(bytes=self._random_bytes(16), version=4))
        end_time = now + self._absolute_lifetime
        expire_time = min(now + self._idle_lifetime, end_time)
        with self._within(connection) as transaction:
            active = select(users.c.uid).where(users.c.uid == user_uid, users.c.state == "active")
            if transaction.execute(active).first() is None:
                raise SessionRefusedError("The user is gone or disabled.")
            transaction.execute(delete(sessions).where(sessions.c.expire_time <= now))
            transaction.execute(
                insert(sessions).values(
                    session_id=session_id,
                    user_uid=user_uid,
                    spiffe_id=spiffe_id,
                    family_hash=_hash(family),
                    token_hash=_hash(token),
                    create_time=now,
                    expire_time=expire_time,
                    end_time=end_time,
                )
            )
        return Session(session_id, user_uid, _encode(token), expire_time)

    def rotate(self, refresh_token: str, spiffe_id: str) -> Session:
        """Trade a refresh token for the next one, in one atomic statement.

        A token that was used before, or that comes from another SPIFFE ID, shows that a copy is
        in the wrong hands, and nobody can tell which: the session ends and its owner logs in
        again. Of two refreshes with one token at the same time one wins, and the other is merely
        refused: it saw the token good when it began, so the winner was not a thief of long ago.

        Raises ``RefreshRefusedError``, ``RefreshReusedError`` and ``RefreshStolenError``.
        """
        token = _decode(refresh_token)
        family = token[:_FAMILY_BYTES]
        with self._database.read() as connection:
            before = _find(connection, family)
        if before is None:
            # Also what spares the write lock those who only guess.
            raise _refused()
        was_good = before.token_hash == _hash(token)
        renewed = family + self._random_bytes(_SECRET_BYTES)
        with self._database.write() as connection:
            now = self._clock()
            row = self._swap(connection, token, renewed, spiffe_id, now)
            if row is not None:
                return Session(row.session_id, row.user_uid, _encode(renewed), row.expire_time)
            present = _find(connection, family)
            if present is None or present.expire_time <= now:
                raise _refused()
            stolen = present.spiffe_id != spiffe_id
            if was_good and not stolen:
                raise _refused()
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

    def end(self, session_id: str) -> bool:
        """End one session; whether it was alive. Its access tokens are revoked either way."""
        with self._database.write() as connection:
            return self._end(connection, session_id, self._clock())

    def end_all(
        self, connection: Connection, user_uid: str, except_session: str | None = None
    ) -> int:
        """End a user's sessions within a write transaction; returns how many were alive."""
        now = self._clock()
        query = select(sessions.c.session_id, sessions.c.expire_time).where(
            sessions.c.user_uid == user_uid
        )
        alive = 0
        for row in connection.execute(query).all():
            if row.session_id != except_session:
                self._end(connection, row.session_id, now)
                alive += row.expire_time > now
        return alive

    def _swap(
        self, connection: Connection, old: bytes, new: bytes, spiffe_id: str, now: float
    ) -> Row[Any] | None:
        c = sessions.c
        idle = now + self._idle_lifetime
        return connection.execute(
            update(sessions)
            .where(
                c.family_hash == _hash(old[:_FAMILY_BYTES]),
                c.token_hash == _hash(old),
                c.spiffe_id == spiffe_id,
                c.expire_time > now,
            )
            .values(
                token_hash=_hash(new),
                expire_time=case((c.end_time < idle, c.end_time), else_=idle),
            )
            .returning(c.session_id, c.user_uid, c.expire_time)
        ).one_or_none()

    def _end(self, connection: Connection, session_id: str, now: float) -> bool:
        expire_time = now + self._access_token_lifetime + LEEWAY_SECONDS
        append(connection, Kind.SESSION, session_id, expire_time=expire_time, now=now)
        gone = delete(sessions).where(sessions.c.session_id == session_id)
        return connection.execute(gone).rowcount == 1

    def _within(self, connection: Connection | None) -> AbstractContextManager[Connection]:
        return self._database.write() if connection is None else nullcontext(connection)


def _find(connection: Connection, family: bytes) -> Row[Any] | None:
    query = select(sessions).where(sessions.c.family_hash == _hash(family))
    return connection.execute(query).one_or_none()


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _encode(token: bytes) -> str:
    return urlsafe_b64encode(token).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        token = b64decode(text + "=", altchars=b"-_", validate=True)
    except ValueError:
        raise _refused() from None
    # The last character has two bits to spare: one spelling of a token only.
    if len(text) != _TOKEN_CHARACTERS or _encode(token) != text:
        raise _refused()
    return token


def _refused() -> RefreshRefusedError:
    return RefreshRefusedError("The refresh token is not good any more. Log in again.")
