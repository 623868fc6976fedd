"""The context of plain functions on the asyncio stack, with the threaded stack's interface."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, NoReturn

import grpc
import grpc.aio

from secure_server.guard.callbacks import CallCallbacks


class HungUp(grpc.RpcError):
    """The call is over: the caller has hung up, or its deadline has passed."""


class PlainContext:
    """The methods of ``grpc.ServicerContext``, for a function that runs in a thread.

    A call may end while its function runs. Then methods of grpcio's own context crash (``peer()``,
    ``auth_context()`` and all that send): so this one holds copies, and sends only on the event
    loop, which knows whether the call has ended.
    """

    def __init__(self, context: Any, callbacks: CallCallbacks) -> None:
        """Call it on the event loop. ``callbacks`` holds those of the call."""
        self.is_over = False
        self._callbacks = callbacks
        self._waiting: set[asyncio.Task[Any]] = set()
        context.add_done_callback(lambda _context: self._end())
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._metadata = context.invocation_metadata()
        self._peer = context.peer()
        self._auth_context = context.auth_context()
        self._peer_identities = context.peer_identities()
        self._peer_identity_key = context.peer_identity_key()

    # Facts about the call.

    def invocation_metadata(self) -> Any:
        return self._metadata

    def peer(self) -> str:
        return self._peer  # type: ignore[no-any-return]

    def peer_identities(self) -> Any:
        return self._peer_identities

    def peer_identity_key(self) -> str | None:
        return self._peer_identity_key  # type: ignore[no-any-return]

    def auth_context(self) -> Any:
        return self._auth_context

    def time_remaining(self) -> float | None:
        return self._context.time_remaining()  # type: ignore[no-any-return]

    def is_active(self) -> bool:
        return not (self.is_over or self._context.done())

    # State for the end of the call.

    def code(self) -> grpc.StatusCode | None:
        return self._context.code()  # type: ignore[no-any-return]

    def details(self) -> str:
        return self._context.details()  # type: ignore[no-any-return]

    def trailing_metadata(self) -> Any:
        return self._context.trailing_metadata()

    def set_code(self, code: grpc.StatusCode) -> None:
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        self._context.set_details(details)

    def set_trailing_metadata(self, metadata: Any) -> None:
        self._context.set_trailing_metadata(metadata)

    def set_compression(self, compression: grpc.Compression) -> None:
        self._context.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        self._context.disable_next_message_compression()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call a function, on a thread, when the call has ended; False if it already has."""
        return self._callbacks.add(callback)

    def _end(self) -> None:
        self.is_over = True
        self._callbacks.end()

    def hang_up(self) -> None:
        """Stop what the function waits for: its call is over. To be called on the event loop."""
        self.is_over = True
        for task in tuple(self._waiting):
            task.cancel()

    # Sending.

    def abort(self, code: grpc.StatusCode, details: str = "", trailers: Any = ()) -> NoReturn:
        self._wait_for(lambda: self._context.abort(code, details, tuple(trailers)))
        raise AssertionError

    def abort_with_status(self, status: Any) -> NoReturn:
        self.abort(status.code, status.details, status.trailing_metadata or ())

    def send_initial_metadata(self, metadata: Any) -> None:
        self._wait_for(lambda: self._context.send_initial_metadata(metadata))

    def read(self) -> Any:
        """Return the next request, or ``grpc.aio.EOF``."""
        return self._wait_for(self._context.read)

    def write_all(self, responses: Iterable[Any]) -> None:
        """Send what a servicer yields, and close its generator at the end, even after an error."""
        try:
            for response in responses:
                self._wait_for(lambda response=response: self._context.write(response))  # type: ignore[misc]
        finally:
            close = getattr(responses, "close", None)  # a generator has one
            if close is not None:
                close()

    def _wait_for(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        async def operate() -> Any:
            if self.is_over:
                raise HungUp("The call is over.")
            task = asyncio.current_task()
            assert task is not None
            self._waiting.add(task)
            try:
                return await operation()
            finally:
                self._waiting.discard(task)

        if self.is_over or self._loop.is_closed():
            raise HungUp("The call is over.")
        try:
            return asyncio.run_coroutine_threadsafe(operate(), self._loop).result()
        except concurrent.futures.CancelledError:  # or the event loop is being closed
            raise HungUp("The call is over.") from None


def requests_of(context: PlainContext) -> Iterator[Any]:
    """Yield the requests of a call."""
    while (message := context.read()) is not grpc.aio.EOF:
        yield message
