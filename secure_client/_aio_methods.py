"""The methods of ``aio``'s channel, which run on the current counted channel."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from secure_client._credentials import NO_TOKEN
from secure_client._rotation import RotatingMethod

if TYPE_CHECKING:
    from secure_client._rotation import CountedChannel
    from secure_client.aio import RotatingChannel

# What gRPC sends (PROTOCOL-HTTP2, "Custom-Metadata"); keys that end in -bin may have any value.
_LEGAL_KEY = re.compile(r"[a-z0-9_.-]+\Z")
_LEGAL_VALUE = re.compile(rb"[\x20-\x7e]*\Z")

_Metadata = tuple[tuple[str, str | bytes], ...]
_Call = grpc.aio.UnaryUnaryCall[Any, Any]


class Streaming(RotatingMethod):
    """A method with a stream of requests, of responses or both."""

    _owner: RotatingChannel

    def __call__(
        self, request: Any = None, timeout: float | None = None, metadata: Any = None, **more: Any
    ) -> Any:
        metadata = _checked(metadata)
        counted = self._owner.counted_channel()
        try:
            call = self.on(counted)(request, timeout=timeout, metadata=metadata, **more)
        except BaseException:
            counted.leave()
            raise
        call.add_done_callback(lambda _: counted.leave())
        return call


class UnaryUnary(RotatingMethod):
    _owner: RotatingChannel

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Any = None, **more: Any
    ) -> Any:
        metadata = _checked(metadata)
        return _RenewedCall(
            self._owner,
            lambda counted, timeout: self.on(counted)(
                request, timeout=timeout, metadata=metadata, **more
            ),
            self._owner.timeout if timeout is None else timeout,
        )


class _RenewedCall(_Call):
    """A call that is retried once, with a fresh token, if the server answers UNAUTHENTICATED.

    A class because gRPC returns the call object at once, and both attempts are this one call.
    """

    def __init__(
        self, owner: RotatingChannel, send: Callable[[CountedChannel, float], _Call], timeout: float
    ) -> None:
        self._owner = owner
        self._send = send
        self._end = time.monotonic() + timeout
        counted = owner.counted_channel()
        before = counted.token()
        try:
            self._attempt = send(counted, timeout)
        except BaseException:
            counted.leave()
            raise
        self._look: asyncio.Future[None] | None = None
        self._outcome = asyncio.create_task(self._settle(counted, before))
        self._outcome.add_done_callback(lambda _: counted.leave())

    async def _settle(self, counted: CountedChannel, before: Any) -> _Call:
        """The attempt whose result is the call's, once it has ended."""
        first = self._attempt
        error = await _failure(first)
        refused = counted.refused_token(before, error) if error is not None else None
        if refused is None:
            return first
        # The token may be bound to a certificate that was replaced within the last second.
        self._look = asyncio.ensure_future(self._owner.look_and_wait())
        await asyncio.wait([self._look], timeout=max(self._end - time.monotonic(), 0.0))
        try:
            counted = self._owner.counted_channel()
        except grpc.aio.UsageError:
            return first
        try:
            counted.refuse(refused)
            second = self._attempt = self._send(counted, self._end - time.monotonic())
            if self._look.cancelled():
                second.cancel()
            error = await _failure(second)
        finally:
            counted.leave()
        if error is not None and NO_TOKEN in (error.details() or ""):
            # There is no fresh token: report the server's first answer.
            return first
        return second

    def __await__(self) -> Generator[None, None, Any]:
        try:
            counts = yield from self._counting().__await__()
            return (yield from counts.__await__())
        except asyncio.CancelledError:
            # As in grpc.aio: cancelling the task that awaits a call cancels the call.
            self.cancel()
            raise

    async def _counting(self) -> _Call:
        return await asyncio.shield(self._outcome)

    def cancel(self) -> bool:
        return self._attempt.cancel() or (self._look is not None and self._look.cancel())

    def cancelled(self) -> bool:
        return self.done() and (self._outcome.cancelled() or self._outcome.result().cancelled())

    def done(self) -> bool:
        return self._outcome.done()

    def time_remaining(self) -> float | None:
        return self._attempt.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._outcome.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return await (await self._counting()).initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return await (await self._counting()).trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        return await (await self._counting()).code()

    async def details(self) -> str:
        return await (await self._counting()).details()

    async def wait_for_connection(self) -> None:
        await (await self._counting()).wait_for_connection()


async def _failure(call: _Call) -> grpc.aio.AioRpcError | None:
    """The error of a call; None where it succeeded or was never sent (awaiting it raises that)."""
    # Not `code()`, which never returns for a call that was not sent.
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - awaiting the call raises it again
        return None
    return None


def _checked(metadata: Iterable[tuple[str, str | bytes]] | None) -> _Metadata:
    """Return legal metadata. Raises ``ValueError`` without the value, which may be secret.

    grpc.aio itself raises an ``ExecuteBatchError`` without a reason, and the call never ends.
    """
    found = tuple(metadata or ())
    for key, value in found:
        if not _LEGAL_KEY.match(key):
            raise ValueError(f"{key!a} is no metadata key: use a-z, 0-9, '-', '_' and '.'.")
        data = value.encode() if isinstance(value, str) else value
        if not key.endswith("-bin") and not _LEGAL_VALUE.match(data):
            raise ValueError(
                f"The value of the metadata key {key!a} is not printable ASCII: only keys that "
                "end in -bin take other values."
            )
    return found
