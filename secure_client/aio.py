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
    """Open a channel as ``secure_client.connect`` does, with the same parameters.

    It belongs to the running event loop, which it never blocks: gRPC calls ``tokens`` on its own
    threads, and another thread reads replaced files, within a second.

    gRPC never ends an abandoned stream: cancel a stream that you do not read to its end. Until
    then its connection, with its old certificate, stays open.

    Raises also ``RuntimeError`` where no event loop runs; calls raise ``ValueError`` for
    illegal metadata.
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
    """As ``secure_client.watch_users``. ``aclose()`` hangs up."""
    if not isinstance(channel, RotatingChannel):
        raise ConfigurationError(NOT_OURS.format(connect="secure_client.aio.connect"))
    return watch(channel, Resuming(resume_token))


class RotatingChannel(Methods, grpc.aio.Channel):
    """The ``grpc.aio.Channel`` that ``connect`` returns, over counted channels."""

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
        self._rotation = ChannelRotation(
            endpoint,
            self._files.identity,
            lambda credentials: grpc.aio.secure_channel(
                endpoint.target, credentials, endpoint.options
            ),
            # The garbage collector may end a call on any thread.
            lambda channel: self._loop.call_soon_threadsafe(self._close_channel, channel),
        )
        self._renewing: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        FOLLOWER.add(self)

    def counted_channel(self) -> CountedChannel:
        """Count one call on the current channel, and return that channel."""
        counted = self._rotation.current
        if not counted.enter():
            raise grpc.aio.UsageError("Channel is closed.")
        return counted

    def look(self) -> None:
        """Have the loop replace the channel if its files have changed; from any thread."""
        if self._files.changed():
            try:
                self._loop.call_soon_threadsafe(self._begin)
            except RuntimeError:
                # The loop is closed, so the channel is dead.
                FOLLOWER.discard(self)

    async def look_and_wait(self) -> None:
        """Replace the channel if its files have changed; concurrent callers share one attempt."""
        await asyncio.shield(self._begin())

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    async def wait(self, seconds: float) -> None:
        """Wait for ``seconds``, or until the channel is closed."""
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
                await self._take(identity, self._rotation.open(identity, self._rotation.current))
        except (TLSError, ClientError) as error:
            self._files.refuse(str(error))
        except Exception as error:  # noqa: BLE001 - after any error the old channel stays
            self._files.refuse(type(error).__name__)

    async def _take(self, identity: Identity, counted: CountedChannel) -> None:
        try:
            if not self._files.is_pressing():
                await _connect(counted.channel)
                await asyncio.to_thread(counted.prepare)
        except BaseException:
            await counted.channel.close()
            raise
        self._rotation.replace(counted)
        self._files.take(identity)

    def _close_channel(self, channel: grpc.aio.Channel) -> None:
        task = self._loop.create_task(channel.close())
        # asyncio holds tasks by weak references only.
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def get_state(
        self,
        try_to_connect: bool = False,  # noqa: FBT001, FBT002 - grpc.aio.Channel's own signature
    ) -> grpc.ChannelConnectivity:
        state: grpc.ChannelConnectivity = self._rotation.current.channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._rotation.current.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        counted = self.counted_channel()
        try:
            await counted.channel.channel_ready()
        finally:
            counted.leave()

    async def close(self, grace: float | None = None) -> None:
        """End every call with CANCELLED, after ``grace`` seconds if given, as gRPC does."""
        self._closed.set()
        FOLLOWER.discard(self)
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        channels = self._rotation.all()
        for counted in channels:
            counted.retire()
        await asyncio.gather(*(counted.channel.close(grace) for counted in channels))

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
