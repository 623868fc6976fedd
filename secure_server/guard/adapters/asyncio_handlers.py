"""One guarded method on the asyncio stack, for every style of behavior.

grpcio sees a coroutine function that reads and writes through its context. So all decisions are
made on the event loop, and exceptions of servicers are caught here: grpcio would send their text to
the caller.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import aclosing, suppress
from typing import Any, Protocol

import grpc
import grpc.aio

from secure_server import logs
from secure_server.guard.adapters.asyncio_plain import HungUp, PlainContext, requests_of
from secure_server.guard.callbacks import Callbacks
from secure_server.guard.caller import CALLER, Caller
from secure_server.guard.refusal import Answer
from secure_server.guard.status import FAILED, NOT_ONE_MESSAGE, PARSE_FAILED, answer_of
from secure_server.guard.streams.watch import LAST_WORD

Context = Any  # grpc.aio.ServicerContext, without the methods that its type lacks
Handler = Any  # grpc.RpcMethodHandler, which has one behavior of four

_OVERLOADED = answer_of(Answer.OVERLOADED)
_NO_FAILURE = (None, grpc.StatusCode.OK, 0)
_TOO_SLOW = (grpc.StatusCode.CANCELLED, "The request message did not come.")


class Door(Protocol):
    """The part of the interceptor that a guarded method uses."""

    message_timeout: float
    callbacks: Callbacks

    async def admit(
        self, method: str, context: Context, *, stream: AioStream | None = None
    ) -> Caller: ...

    def forget(self, stream: AioStream) -> None: ...

    def run(self, function: Callable[[], Any], *, stream: bool) -> Future[Any]: ...

    def try_open_stream(self) -> bool: ...

    def close_stream(self) -> None: ...

    def ended(self, method: str, code: str) -> None: ...


class _Unparsable(Exception):  # noqa: N818 - only servicers' code sees it
    """A request message could not be parsed."""


class GuardedMethod:
    """A method that admits its callers before it runs its behavior.

    The behavior may be a coroutine function, which returns a response or writes responses, an
    async generator function, or a plain function or generator function, which runs in a thread.
    """

    def __init__(self, door: Door, method: str, handler: Handler) -> None:
        self._door = door
        self._method = method
        self._handler = handler
        self._behavior = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        self._is_generator = inspect.isasyncgenfunction(self._behavior)
        self._is_plain = not (self._is_generator or inspect.iscoroutinefunction(self._behavior))
        self._is_stream = handler.request_streaming or handler.response_streaming

    def handler(self) -> Handler:
        """Return what grpcio is to serve."""
        parse = _safe(self._handler.request_deserializer)
        if self._handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._serve, parse, self._handler.response_serializer
            )
        # The response is serialized here: grpcio would send the text of what a serializer raises.
        return grpc.stream_unary_rpc_method_handler(self._serve, parse, None)

    async def _serve(self, requests: AsyncIterator[Any], context: Context) -> Any:
        try:
            return await self._admit_and_answer(requests, context)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise  # the caller hung up, or the server stops
            # From a task that the servicer waited for. grpcio would send no status, and the caller
            # would wait for ever.
            await self._fail(error, context)
        except Exception as error:  # noqa: BLE001 - a servicer may raise anything
            await self._fail(error, context)
        finally:
            self._door.ended(self._method, status_of(context))

    async def _admit_and_answer(self, requests: AsyncIterator[Any], context: Context) -> Any:
        stream = AioStream(context) if self._is_stream else None
        caller = await self._door.admit(self._method, context, stream=stream)
        place = _StreamSlot(self._door)
        try:
            if self._is_stream and not place.take():
                await context.abort(*_OVERLOADED)
            CALLER.set(caller)  # every call runs in its own task
            if self._handler.request_streaming:
                argument: Any = requests
            else:
                argument = await self._one_message(context)
            response = await self._call(argument, context, place)
        finally:
            place.give_back()
            if stream is not None:
                self._door.forget(stream)
        if self._handler.response_streaming or context.code() not in _NO_FAILURE:
            return None
        serialize = self._handler.response_serializer
        return response if serialize is None else serialize(response)

    async def _one_message(self, context: Context) -> Any:
        try:
            async with asyncio.timeout(self._door.message_timeout):
                message = await context.read()
        except TimeoutError:
            await context.abort(*_TOO_SLOW)
        if message is grpc.aio.EOF:
            await context.abort(*NOT_ONE_MESSAGE)
        return message

    async def _call(self, argument: Any, context: Context, place: _StreamSlot) -> Any:
        if self._is_plain:
            return await self._call_plain(argument, context, place)
        if not self._is_generator:
            return await self._behavior(argument, context)
        # Closed here: its ``finally`` runs when the caller hangs up, not at a later collection.
        async with aclosing(self._behavior(argument, context)) as responses:
            async for response in responses:
                await context.write(response)
        return None

    async def _call_plain(self, argument: Any, context: Context, place: _StreamSlot) -> Any:
        plain = PlainContext(context, self._door.callbacks.of_call())
        if self._handler.request_streaming:
            argument = requests_of(plain)
        # A copy for this call: grpcio would leave one caller's context on the thread for the next.
        own = contextvars.copy_context()
        future = self._door.run(
            lambda: own.run(self._run_plain, argument, plain), stream=self._is_stream
        )
        # The thread may outlive the call, and holds the slot until it ends.
        future.add_done_callback(place.transfer())
        try:
            response, error = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            plain.hang_up()  # a peer that reads nothing would block the thread
            raise
        if error is not None:
            raise error
        return response

    def _run_plain(self, argument: Any, context: PlainContext) -> tuple[Any, Exception | None]:
        try:
            response = self._behavior(argument, context)
            if self._handler.response_streaming:
                context.write_all(response)
            return response, None
        except Exception as error:  # noqa: BLE001 - a servicer may raise anything
            if context.is_over and not isinstance(error, grpc.RpcError | grpc.aio.BaseError):
                self._log(error)  # the call is over, so the log is the only place for it
            # Returned, since a future cannot hold every exception (StopIteration).
            return None, error

    async def _fail(self, error: BaseException, context: Context) -> None:
        """End a call whose servicer raised, with the status that it had set or INTERNAL.

        The exception's text goes to the log only.
        """
        if context.done():
            # context.abort(), which grpcio raises again; or aborting failed, as the caller is gone.
            if not isinstance(error, grpc.aio.AbortError | grpc.aio.InternalError):
                self._log(error)
            return
        if isinstance(error, _Unparsable):
            status: tuple[Any, str] = PARSE_FAILED
        elif isinstance(error, grpc.aio.InternalError | HungUp):
            status = FAILED  # sending failed: the caller is gone, or gets this status
        elif isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError):
            raise error  # the server has stopped: the call must not be touched any more
        elif context.code() not in _NO_FAILURE:
            # set_code() and an exception: generated base classes do so for methods that are not
            # implemented.
            status = (context.code(), context.details())
        else:
            self._log(error)
            status = FAILED
        with suppress(grpc.aio.InternalError):
            await context.abort(*status)

    def _log(self, error: BaseException) -> None:
        logs.logger(__name__).error("a servicer raised", method=self._method, exc_info=error)


class AioStream:
    """A stream served in the current task, which any thread can end."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()

    def end(self, answer: Answer) -> None:
        """End the call with this answer, even while the handler is running."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._end(answer), self._loop)

    def cut(self) -> None:
        """Do nothing: ``end`` cancels the task after its time-out."""

    async def _end(self, answer: Answer) -> None:
        if self._task is None or self._task.done() or self._context.done():
            return
        # In this order: send the status, then stop the handler. The abort raises, as in a handler.
        # A peer that reads nothing delays the status only until the time-out.
        with suppress(grpc.aio.AbortError, grpc.aio.InternalError, TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await self._context.abort(*answer_of(answer))
        self._task.cancel()


class _StreamSlot:
    """A stream slot; exactly one owner releases it."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._is_ours = False

    def take(self) -> bool:
        self._is_ours = self._door.try_open_stream()
        return self._is_ours

    def give_back(self) -> None:
        if self._is_ours:
            self._is_ours = False
            self._door.close_stream()

    def transfer(self) -> Callable[[Any], None]:
        """Return a function that releases the slot in place of this owner."""
        transferred = _StreamSlot(self._door)
        transferred._is_ours, self._is_ours = self._is_ours, False
        return lambda _future: transferred.give_back()


def status_of(context: Context) -> str:
    """Return the name of the running call's status."""
    code = context.code()
    if code is None:
        return "CANCELLED" if _is_cancelled() else "OK"
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN")


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
"""Return the code: grpcio's asyncio stack accepts numbers too."""


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _safe(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if deserialize is None:
        return None

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception as error:
            raise _Unparsable from error

    return parse
