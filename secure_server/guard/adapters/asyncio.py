"""The guard on grpcio's asyncio stack: the same core, another adapter.

As on threads, every method is served by a handler that takes a stream, so that a refusal reaches a
silent caller at once. The event loop looks up cached results; slow work (a new certificate, a
signature) runs on a thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from secure_base.bounded_cache import BoundedCache
from secure_server import logs
from secure_server.guard.adapters.asyncio_handlers import AioStream, GuardedMethod, status_of
from secure_server.guard.call import Call
from secure_server.guard.callbacks import Callbacks
from secure_server.guard.caller import Caller
from secure_server.guard.core import Core
from secure_server.guard.refusal import Refusal
from secure_server.guard.status import FAILED, UNKNOWN_METHOD, CallEnded, answer_of
from secure_server.guard.streams.watch import StreamWatch
from secure_server.guard.watchdog import Watchdog
from secure_server.limits import Limits

Handler = Any  # grpc.RpcMethodHandler, which has one behavior of four
Context = Any  # grpc.aio.ServicerContext, without the methods that its type lacks

_MOST_METHODS = 10_000


class AioGuardInterceptor(grpc.aio.ServerInterceptor):
    """Puts the guard in front of every method of an asyncio server, unknown ones included.

    It must be the outermost interceptor: one before it would run before the decision. Plain
    functions run on the guard's threads, not in the server's ``migration_thread_pool``: with grpcio
    a caller who hangs up can block one of those for ever, and refusals wait for a free one.
    """

    def __init__(
        self,
        core: Core,
        *,
        watch: StreamWatch,
        limits: Limits,
        call_ended: CallEnded,
        callbacks: Callbacks,
        watchdog: Watchdog,
    ) -> None:
        """Serve at most ``limits.stream_threads`` open streams at once; authenticate at most
        ``limits.door_threads`` callers, and run as many plain functions.
        """
        self.message_timeout = limits.message_timeout
        self.callbacks = callbacks
        self._watchdog = watchdog
        self._watched = watchdog.threads
        self._core = core
        self._watch = watch
        self._call_ended = call_ended
        self._free = threading.Semaphore(limits.stream_threads)
        # Separate pools, so that slow authentications, open streams and plain functions cannot
        # block each other.
        self._recognising = ThreadPoolExecutor(limits.door_threads, thread_name_prefix="door")
        self._calls = ThreadPoolExecutor(limits.door_threads, thread_name_prefix="call")
        self._streams = ThreadPoolExecutor(limits.stream_threads, thread_name_prefix="stream")
        # BoundedCache: a servicer may take any path, and then callers invent the methods.
        self._wrapped: BoundedCache[str, tuple[Handler, Handler]] = BoundedCache(_MOST_METHODS)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the guarded handler, built once per method."""
        if threading.get_ident() not in self._watched:
            self._watchdog.add_loop()
        method = handler_call_details.method
        try:
            handler = await continuation(handler_call_details)
        except Exception:  # noqa: BLE001 - an interceptor or a generic handler may raise anything
            # grpcio would send the exception's text, even to callers that the policy denies.
            logs.logger(__name__).exception("no handler was found", method=method)
            return self._without_handler(method, FAILED)
        if handler is None:
            return self._without_handler(method, UNKNOWN_METHOD)
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = (handler, GuardedMethod(self, method, handler).handler())
            self._wrapped.put(method, known)
        return known[1]

    def close(self) -> None:
        """Stop the threads once they are idle."""
        for threads in (self._recognising, self._calls, self._streams):
            threads.shutdown(wait=False)

    def _without_handler(self, method: str, answer: tuple[grpc.StatusCode, str]) -> Handler:
        """Decide first: a caller who may not call a method must not learn whether it exists."""

        async def refuse(_requests: Any, context: Context) -> None:
            try:
                await self.admit(method, context, method_exists=False)
                await context.abort(*answer)
            except grpc.aio.InternalError:
                pass  # the caller is gone
            finally:
                self._call_ended("unknown", status_of(context))

        return grpc.stream_unary_rpc_method_handler(refuse, None, None)

    async def admit(
        self,
        method: str,
        context: Context,
        *,
        method_exists: bool = True,
        stream: AioStream | None = None,
    ) -> Caller:
        """Return the caller, or end the call. A ``stream`` is watched from then on."""
        # Copied now: on this stack, using the context of an ended call crashes.
        call = Call(method, context.invocation_metadata(), context.auth_context(), method_exists)
        try:
            caller = self._core.try_admit_cached(call)
            if caller is None:
                loop = asyncio.get_running_loop()
                caller = await loop.run_in_executor(self._recognising, self._core.admit, call)
        except Refusal as refusal:
            await context.abort(*answer_of(refusal.reason.answer))
            raise
        if stream is not None:
            self._watch.add(stream, caller, call)
        return caller

    def forget(self, stream: AioStream) -> None:
        """Stop watching a stream."""
        self._watch.remove(stream)

    def run(self, function: Callable[[], Any], *, stream: bool) -> Future[Any]:
        """Run a plain function in a thread."""
        return (self._streams if stream else self._calls).submit(function)

    def try_open_stream(self) -> bool:
        """Take a stream slot; False where none is free."""
        return self._free.acquire(blocking=False)

    def close_stream(self) -> None:
        """Release a stream slot."""
        self._free.release()

    def ended(self, method: str, code: str) -> None:
        """Count a call."""
        self._call_ended(method, code)
