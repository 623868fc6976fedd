"""The channel of ``secure_client.connect`` for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Self

import grpc
import grpc.aio

from secure_client._aio_methods import Streaming, UnaryUnary
from secure_client._aio_users import watch
from secure_client._endpoint import Endpoint
from secure_client._files import FOLLOWER, Files
from secure_client._resuming import NOT_OURS, Resuming
from secure_client._rotation import (
    PATIENCE,
    SETTLED,
    UNREACHABLE,
    ChannelRotation,
    CountedChannel,
    Methods,
)
from secure_client.errors import ClientError, ConfigurationError
from secure_tls import TLSError

if TYPE_CHECKING:
    from secure_api.users.v1.user_service_pb2 import WatchUsersResponse
    from secure_client._identity import Identity
    from secure_client._service_config import IdempotentMethods
    from secure_client.tokens.source import TokenSource

__all__ = ["connect", "watch_users"]


def connect(
    target: str,
    *,
    ca: str | os.PathLike[str],
    certificate: str | os.PathLike[str] | None = None,
    private_key: str | os.PathLike[str] | None = None,
    tokens: TokenSource | None = None,
    server_name: str | None = None,
    timeout: float = 30.0,
    idempotent_methods: IdempotentMethods = (),
) -> grpc.aio.Channel:
    """Open a channel as ``secure_client.connect`` does, with the same parameters and promises.

    It belongs to the running event loop, which it never blocks: ``tokens`` are asked on threads
    of gRPC's own, and replaced files are read on another, within a second.

    gRPC never collects a stream that is abandoned: cancel what is not read to its end. Until then
    the connection with the certificate of its time stays open.

    Raises also ``RuntimeError`` where no event loop runs, and calls raise ``ValueError`` for
    metadata that gRPC does not send.
    """
    return RotatingChannel(
        Endpoint(
            target,
            ca=ca,
            certificate=certificate,
            private_key=private_key,
            tokens=tokens,
            server_name=server_name,
            timeout=timeout,
            idempotent_methods=idempotent_methods,
        )
    )


def watch_users(
    channel: grpc.aio.Channel, *, resume_token: str = ""
) -> AsyncGenerator[WatchUsersResponse, None]:
    """Do as ``secure_client.watch_users``. ``aclose()`` hangs up."""
    if not isinstance(channel, RotatingChannel):
        raise ConfigurationError(NOT_OURS.format(connect="secure_client.aio.connect"))
    return watch(channel, Resuming(resume_token))


class RotatingChannel(Methods, grpc.aio.Channel):
    """An ordinary ``grpc.aio.Channel`` over lines: what ``connect`` returns."""

    _kinds: ClassVar = {
        "unary_unary": UnaryUnary,
        "unary_stream": Streaming,
        "stream_unary": Streaming,
        "stream_stream": Streaming,
    }

    def __init__(self, endpoint: Endpoint) -> None:
        self.timeout = endpoint.timeout
        self._loop = asyncio.get_running_loop()
        self._closing: set[asyncio.Task[None]] = set()
        self._files = Files(endpoint)
        self._lines = ChannelRotation(
            endpoint,
            self._files.identity,
            lambda credentials: grpc.aio.secure_channel(
                endpoint.target, credentials, endpoint.options
            ),
            # A call that the garbage collector ends may end on any thread.
            lambda channel: self._loop.call_soon_threadsafe(self._close_channel, channel),
        )
        self._renewing: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        FOLLOWER.add(self)

    def line(self) -> CountedChannel:
        """The line for one call, which is counted on it."""
        line = self._lines.current
        if not line.enter():
            raise grpc.aio.UsageError("Channel is closed.")
        return line

    def look(self) -> None:
        """Have the loop replace the line if its files have changed; from any thread."""
        if self._files.changed():
            try:
                self._loop.call_soon_threadsafe(self._begin)
            except RuntimeError:
                # The loop has been closed, and the channel with it.
                FOLLOWER.discard(self)

    async def look_and_wait(self) -> None:
        """Replace the line if its files have changed; whoever comes second waits for the first."""
        await asyncio.shield(self._begin())

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    async def wait(self, seconds: float) -> None:
        """Wait, no longer than the channel is open."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    def _begin(self) -> asyncio.Task[None]:
        if self._renewing is None or self._renewing.done():
            self._renewing = self._loop.create_task(self._renew())
        return self._renewing

    async def _renew(self) -> None:
        try:
            identity = await asyncio.to_thread(self._files.read)
            if identity is not None and not self.is_closed:
                await self._take(identity, self._lines.open(identity, self._lines.current))
        except (TLSError, ClientError) as error:
            self._files.refuse(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the old line stays
            self._files.refuse(type(error).__name__)

    async def _take(self, identity: Identity, line: CountedChannel) -> None:
        try:
            if not self._files.is_pressing():
                await _connect(line.channel)
                await asyncio.to_thread(line.prepare)
        except BaseException:
            await line.channel.close()
            raise
        self._lines.replace(line)
        self._files.take(identity)

    def _close_channel(self, channel: grpc.aio.Channel) -> None:
        task = self._loop.create_task(channel.close())
        # The loop itself keeps no task alive.
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def get_state(
        self,
        try_to_connect: bool = False,  # noqa: FBT001, FBT002 - grpc.aio.Channel's own signature
    ) -> grpc.ChannelConnectivity:
        state: grpc.ChannelConnectivity = self._lines.current.channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._lines.current.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        line = self.line()
        try:
            await line.channel.channel_ready()
        finally:
            line.leave()

    async def close(self, grace: float | None = None) -> None:
        """End every call with CANCELLED, after ``grace`` seconds if given, as gRPC does."""
        self._closed.set()
        FOLLOWER.discard(self)
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        lines = self._lines.all()
        for line in lines:
            line.retire()
        await asyncio.gather(*(line.channel.close(grace) for line in lines))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _connect(channel: grpc.aio.Channel) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while (state := channel.get_state(try_to_connect=True)) not in SETTLED:
                await channel.wait_for_state_change(state)
    except TimeoutError:
        pass
    if state is not grpc.ChannelConnectivity.READY:
        raise ClientError(UNREACHABLE)
