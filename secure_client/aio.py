"""The channel of ``secure_client.connect`` for asyncio."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from typing import TYPE_CHECKING, ClassVar, Self

import grpc
import grpc.aio

from secure_client._aio_methods import Streaming, UnaryUnary
from secure_client._endpoint import Endpoint
from secure_client._lines import LOOK_EVERY, Line, Lines, Methods

if TYPE_CHECKING:
    from secure_client._credentials import TokenPlugin
    from secure_client._service_config import IdempotentMethods
    from secure_client.tokens.source import TokenSource

__all__ = ["connect"]

_logger = logging.getLogger("secure_client")


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
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._closing: set[asyncio.Task[None]] = set()
        self._lines = Lines(endpoint, self._open)
        self._looking: asyncio.Task[None] | None = None
        self._closed = False
        # Also while there are no calls: the first after a long pause has the right certificate.
        self._watch = asyncio.create_task(_watch(weakref.ref(self)))

    def line(self) -> Line:
        """The line for one call, which is counted on it."""
        line = self._lines.current
        if not line.enter():
            raise grpc.aio.UsageError("Channel is closed.")
        return line

    async def look(self) -> None:
        """Replace the line if its files have changed; whoever comes second waits for the first."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        if self._closed:
            return
        try:
            renewal = await asyncio.to_thread(self._lines.renewal)
            if renewal is not None and not self._closed:
                self._lines.replace(renewal)
        except Exception as error:  # noqa: BLE001 - the next second tries again
            _logger.warning("the client's files cannot be looked at: %s", type(error).__name__)

    def _open(self, credentials: grpc.ChannelCredentials, plugin: TokenPlugin | None) -> Line:
        channel = grpc.aio.secure_channel(
            self._endpoint.target, credentials, self._endpoint.options
        )
        # A call that the garbage collector ends may end on any thread.
        return Line(
            channel, plugin, lambda: self._loop.call_soon_threadsafe(self._close_line, channel)
        )

    def _close_line(self, channel: grpc.aio.Channel) -> None:
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
        self._closed = True
        self._watch.cancel()
        lines = self._lines.all()
        for line in lines:
            line.retire()
        await asyncio.gather(*(line.channel.close(grace) for line in lines))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _watch(channel: weakref.ref[RotatingChannel]) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY)
        if (found := channel()) is None:
            return
        await found.look()
        del found
