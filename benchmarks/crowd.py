"""Sessions with open streams, and what happens to them when one is revoked (asyncio)."""

from __future__ import annotations

import asyncio
import math
import secrets
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import jwt

from benchmarks.open_streams import (
    COUNTER,
    STATUS_LOST,
    IntrospectStream,
    Numbers,
    OpenStream,
    WatchStream,
)
from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from tests.support.running import DEADLINE, bearer

STREAMS_A_SESSION = 20
STREAMS_A_CLIENT = 100

_USERS = 4
_INTROSPECT_EVERY = 5
_CHANGE_EVERY = 0.5
_PATIENCE = 10.0
"""Seconds after which a stream that has not ended, or an awaited message, counts as missing."""

_LOOK_EVERY = 0.1

_ENDED = "UNAUTHENTICATED SESSION_ENDED"


@dataclass
class Session:
    """A session and its streams."""

    session_id: str
    streams: list[OpenStream] = field(default_factory=list)
    revoked_at: float = math.inf
    """When its revocation was sent, by ``time.monotonic``."""


@dataclass
class Figures:
    """The counts. The last three must stay 0."""

    streams: int = 0
    """The number of streams opened."""
    messages: int = 0
    seconds: list[float] = field(default_factory=list)
    """Seconds from a revocation until a stream of the session ended with its reason, or with a
    status that grpcio lost."""
    endings: Counter[str] = field(default_factory=Counter)
    """How streams ended."""
    wrong: int = 0
    """Streams that ended although their session was not revoked."""
    not_ended: int = 0
    """Streams of a revoked session that stayed open, or ended without the reason."""
    missed: int = 0
    """Streams that lack a message, or got one twice."""

    @classmethod
    def of(cls, sessions: Sequence[Session]) -> Figures:
        """Check all streams, once no more messages are sent."""
        figures = cls()
        for session in sessions:
            for stream in session.streams:
                figures._count(session, stream)
        return figures

    def _count(self, session: Session, stream: OpenStream) -> None:
        self.streams += 1
        self.messages += stream.messages
        behind = stream.is_open and stream.last != stream.due()
        self.missed += stream.missed or behind
        if stream.is_open:
            self.not_ended += session.revoked_at < math.inf
            return
        self.endings[stream.ending] += 1
        if stream.ended_at < session.revoked_at:
            self.wrong += 1
        elif stream.ending in (_ENDED, STATUS_LOST):
            self.seconds.append(stream.ended_at - session.revoked_at)
        else:
            self.not_ended += 1

    def summary(self) -> dict[str, Any]:
        """Return the figures to print."""
        quantiles = [0.0] * 99
        if len(self.seconds) > 1:
            quantiles = statistics.quantiles(self.seconds, n=100, method="inclusive")
        return {
            "streams": self.streams,
            "messages": self.messages,
            "endings": dict(self.endings),
            "stream_end_p50_s": round(quantiles[49], 3),
            "stream_end_p99_s": round(quantiles[98], 3),
            "stream_end_max_s": round(max(self.seconds, default=0.0), 3),
            "wrong_streams_ended": self.wrong,
            "streams_not_ended": self.not_ended,
            "streams_that_missed_messages": self.missed,
        }


class Crowd:
    """Sessions of a few users on a few connections, all with streams on every server.

    So a revoked session has neighbours of the same user, of the same client and on the same
    connection, whose streams must stay open.
    """

    def __init__(self, channels: list[list[grpc.aio.Channel]], operator: str, streams: int) -> None:
        """``channels`` to each server by client; the first client is that of the ``operator``,
        whose token it is. ``streams`` are open at once.
        """
        self._channels = channels
        self._token = operator
        self._metadata = bearer(operator)
        self._passwords: dict[str, str] = {}
        self._streams = streams
        self._numbers = Numbers()
        self.sessions: list[Session] = []

    async def run(self, rounds: int) -> Figures:
        """Open all streams; in each round revoke a session, and replace it by a new one."""
        await self._create(COUNTER.removeprefix("users/"))
        for place in range(self._streams // STREAMS_A_SESSION):
            await self._open(place)
        async with self._changing():
            for number in range(rounds):
                # The oldest session: each of the first ones in turn.
                session = self.sessions[number]
                await self._revoke(session, by=number)
                await self._open(number)
        await self._arrival()
        figures = Figures.of(self.sessions)
        for session in self.sessions:
            for stream in session.streams:
                stream.close()
        return figures

    async def _open(self, place: int) -> None:
        """Log in, and open the streams of the session."""
        clients = len(self._channels[0]) - 1
        user = f"user-{place % _USERS}"
        client = 1 + place * STREAMS_A_SESSION // STREAMS_A_CLIENT % clients
        tokens = await self._log_in(user, client)
        claims = jwt.decode(tokens.access_token, options={"verify_signature": False})
        session = Session(claims["sid"])
        self.sessions.append(session)
        for number in range(STREAMS_A_SESSION):
            stream: OpenStream = (
                IntrospectStream(self._numbers, self._token)
                if number % _INTROSPECT_EVERY == 0
                else WatchStream(self._numbers)
            )
            channels = self._channels[number // 2 % len(self._channels)]
            stream.open(channels[client], tokens.access_token)
            session.streams.append(stream)
        async with asyncio.timeout(DEADLINE):
            for stream in session.streams:
                await stream.opened.wait()

    async def _log_in(self, user: str, client: int) -> tokens_pb.Tokens:
        request = tokens_pb.LoginRequest(user_name=user)
        if user in self._passwords:
            request.password = self._passwords[user]
        else:
            request.password = await self._create(user)
            request.new_password = self._passwords[user] = secrets.token_urlsafe(18)
        stub = TokenServiceStub(self._channels[0][client])
        tokens: tokens_pb.Tokens = await stub.Login(request, timeout=DEADLINE)
        return tokens

    async def _create(self, user: str) -> str:
        """Create an administrator, and return the initial password."""
        password = secrets.token_urlsafe(18)
        await UserServiceStub(self._channels[0][0]).CreateUser(
            users_pb.CreateUserRequest(
                user_id=user, user=users_pb.User(roles=["admin"]), password=password
            ),
            metadata=self._metadata,
            timeout=DEADLINE,
        )
        return password

    async def _revoke(self, session: Session, *, by: int) -> None:
        stub = TokenServiceStub(self._channels[by % len(self._channels)][0])
        session.revoked_at = time.monotonic()
        await stub.RevokeSession(
            tokens_pb.RevokeSessionRequest(name=f"users/-/sessions/{session.session_id}"),
            metadata=self._metadata,
            timeout=DEADLINE,
        )
        await asyncio.wait([stream.task for stream in session.streams], timeout=_PATIENCE)

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Change the counter, and ask every ``Introspect`` stream, again and again."""
        over = asyncio.Event()
        changing = asyncio.create_task(self._change_until(over))
        try:
            yield
        finally:
            over.set()
            await changing

    async def _change_until(self, over: asyncio.Event) -> None:
        is_last = False
        while not is_last:
            is_last = over.is_set()  # the last change, after every stream was opened
            await self._change()
            await asyncio.sleep(_CHANGE_EVERY)

    async def _change(self) -> None:
        self._numbers.begun += 1
        await UserServiceStub(self._channels[0][0]).UpdateUser(
            users_pb.UpdateUserRequest(
                user=users_pb.User(name=COUNTER, display_name=str(self._numbers.begun))
            ),
            metadata=self._metadata,
            timeout=DEADLINE,
        )
        self._numbers.acknowledged = self._numbers.begun
        for session in tuple(self.sessions):
            for stream in session.streams:
                if isinstance(stream, IntrospectStream) and stream.answers:
                    await stream.ask()

    async def _arrival(self) -> None:
        """Wait until every stream has its last message, up to a time-out."""
        for _ in range(int(_PATIENCE / _LOOK_EVERY)):
            if all(
                stream.last == stream.due() or not stream.is_open
                for session in self.sessions
                for stream in session.streams
            ):
                return
            await asyncio.sleep(_LOOK_EVERY)
