"""Open streams as their callers see them: numbered messages, and how each stream ended."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from tests.support.running import bearer

COUNTER = "users/counter"
"""The user whose display name is the number of its last change."""

STATUS_LOST = "status lost in grpcio"
"""The ending of a stream whose caller was sending when the status came: grpc.aio fails to send, and
reports INTERNAL instead of the server's status."""


class Numbers:
    """The numbers that have been sent: each is one more than the one before."""

    def __init__(self) -> None:
        self.begun = 0
        """The newest that may have arrived."""
        self.acknowledged = 0
        """The newest that has arrived."""


class OpenStream(ABC):
    """One stream. ``task`` reads it until it ends."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._floor = numbers.acknowledged
        self._call: Any = None
        self.opened = asyncio.Event()
        self.last = 0
        """The newest number received."""
        self.messages = 0
        self.missed = False
        """Whether a number was left out, or came twice or late."""
        self.ended_at = 0.0
        """By ``time.monotonic``; 0 while it is open."""
        self.ending = ""
        """The status and the reason that it ended with."""
        self.task: asyncio.Task[None]

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return not self.ended_at

    @property
    def answers(self) -> bool:
        """Whether it is open and the server has answered."""
        return self.opened.is_set() and self.is_open

    def open(self, channel: grpc.aio.Channel, token: str) -> None:
        """Begin; ``opened`` is set once the server has answered."""
        self._call = self._start(channel, bearer(token))
        self.task = asyncio.create_task(self._read())

    @abstractmethod
    def _start(self, channel: grpc.aio.Channel, metadata: Any) -> Any:
        """Begin the call."""

    @abstractmethod
    def _numbered(self, call: Any) -> AsyncIterator[int]:
        """The numbers of its messages; sets ``opened``, and ``last`` before the first."""

    async def _read(self) -> None:
        try:
            async for number in self._numbered(self._call):
                self.take(number)
            self.ending = "OK"
        except grpc.aio.AioRpcError as error:
            self.ending = self._ending(error)
        finally:
            self.ended_at = time.monotonic()
            self.opened.set()

    def _ending(self, error: grpc.aio.AioRpcError) -> str:
        return f"{error.code().name} {_reason(error)}".strip()

    def take(self, number: int) -> None:
        """Note a message."""
        self.messages += 1
        self.missed |= number != self.last + 1
        self.last = number

    def due(self) -> int:
        """The number that it must have received, once no more are sent."""
        return self._numbers.acknowledged

    def close(self) -> None:
        """Hang up."""
        self.task.cancel()
        self._call.cancel()


class WatchStream(OpenStream):
    """``WatchUsers``: every change of the counter, one after the other."""

    def _start(self, channel: grpc.aio.Channel, metadata: Any) -> Any:
        return UserServiceStub(channel).WatchUsers(users_pb.WatchUsersRequest(), metadata=metadata)

    async def _numbered(self, call: Any) -> AsyncIterator[int]:
        async for message in call:
            if message.change == users_pb.WatchUsersResponse.CHANGE_WATCHING:
                # It stands somewhere between these two; its next message says where.
                latest = self._numbers.begun
                self.opened.set()
            elif message.user.name == COUNTER:
                number = int(message.user.display_name)
                if not self.messages and self._floor < number <= latest + 1:
                    self.last = number - 1
                yield number


class IntrospectStream(OpenStream):
    """``Introspect``: a question for every change, and its answer."""

    def __init__(self, numbers: Numbers, token: str) -> None:
        """``token`` is what is asked about; it is a good one."""
        super().__init__(numbers)
        self._token = token
        self.asked = 0
        self._asking: asyncio.Task[None] | None = None

    def _start(self, channel: grpc.aio.Channel, metadata: Any) -> Any:
        return TokenServiceStub(channel).Introspect(metadata=metadata)

    async def ask(self) -> None:
        """Send the next question; nothing where the stream has ended."""
        self.asked += 1
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(
                tokens_pb.IntrospectRequest(correlation_id=str(self.asked), token=self._token)
            )

    def due(self) -> int:
        """The number of its last question."""
        return self.asked

    async def _numbered(self, call: Any) -> AsyncIterator[int]:
        await self.ask()
        async for answer in call:
            self.opened.set()
            self.missed |= not answer.active
            yield int(answer.correlation_id)

    def _ending(self, error: grpc.aio.AioRpcError) -> str:
        # Only a caller that sends can fail to.
        failed_to_send = (error.details() or "").startswith("Internal error from Core")
        return STATUS_LOST if failed_to_send else super()._ending(error)


def _reason(error: grpc.aio.AioRpcError) -> str:
    """The ``google.rpc.ErrorInfo`` reason."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
