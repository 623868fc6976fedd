"""The guard on grpcio's threaded stack.

Every method is served by a handler that takes a stream of raw requests, whatever its own kind:
grpcio runs such a handler at once, before a message has come, and parses nothing. So a refusal
reaches a silent caller immediately, and no message is parsed before the decision. On the wire the
four kinds differ only in how many messages flow.

Decisions and unary calls run in the server's own thread pool, the *door pool*. A stream is decided
there too, but served in the *stream pool*: idle streams can fill that one only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from secure_base.bounded_cache import BoundedCache
from secure_server import logs
from secure_server.guard.adapters.threads_servicer import (
    Context,
    Deserialize,
    Send,
    call_servicer,
    messages,
    parse,
    send_all,
)
from secure_server.guard.adapters.threads_stream import ThreadedStream
from secure_server.guard.call import Call
from secure_server.guard.callbacks import Callbacks
from secure_server.guard.caller import CALLER, Caller, current_caller
from secure_server.guard.core import Core
from secure_server.guard.refusal import Answer, Refusal
from secure_server.guard.status import (
    FAILED,
    NOT_ONE_MESSAGE,
    UNKNOWN_METHOD,
    CallEnded,
    answer_of,
    code_of,
)
from secure_server.guard.streams.outbox import Outbox
from secure_server.guard.streams.pool import ServerStreams
from secure_server.guard.streams.watch import StreamWatch
from secure_server.guard.timeouts import RequestTimeouts
from secure_server.guard.watchdog import Watchdog

Handler = Any  # grpc.RpcMethodHandler, which has one behavior of four


_MOST_METHODS = 10_000


class GuardInterceptor(grpc.ServerInterceptor):
    """Puts the guard in front of every method of a threaded server, unknown ones included.

    It must be the outermost interceptor: one before it would run before the decision.
    """

    def __init__(
        self,
        core: Core,
        streams: ServerStreams,
        timeouts: RequestTimeouts,
        watch: StreamWatch,
        call_ended: CallEnded,
        *,
        callbacks: Callbacks,
        watchdog: Watchdog,
    ) -> None:
        self._core = core
        self._watch = watch
        self._callbacks = callbacks
        self._watchdog = watchdog
        self._watched = watchdog.threads
        self.streams = streams
        self._timeouts = timeouts
        self._call_ended = call_ended
        # BoundedCache: a servicer may take any path, and then callers invent the methods.
        self._wrapped: BoundedCache[str, tuple[Handler, Handler]] = BoundedCache(_MOST_METHODS)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the guarded handler, built once per method.

        This runs on the one serving thread, where a microsecond delays every call.
        """
        if threading.get_ident() not in self._watched:
            self._watchdog.add_serving_thread()
        method = handler_call_details.method
        try:
            handler = continuation(handler_call_details)
        # An interceptor or a generic handler may raise anything; SystemExit would end the thread.
        except BaseException as error:  # noqa: BLE001
            # Decided first: grpcio would answer callers that the policy denies.
            return self._without_handler(method, FAILED, error)
        if handler is None:
            return self._without_handler(method, UNKNOWN_METHOD)
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = (handler, self._wrap(method, handler))
            self._wrapped.put(method, known)
        return known[1]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        if handler.request_streaming or handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._guard_stream(method, handler), None, handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(
            self._guard_unary(method, handler), None, handler.response_serializer
        )

    def _without_handler(
        self,
        method: str,
        answer: tuple[grpc.StatusCode, str],
        error: BaseException | None = None,
    ) -> Handler:
        """Decide first: a caller who may not call a method must not learn whether it exists."""

        def refuse(_requests: Iterator[bytes], context: Context) -> None:
            if error is not None:  # logged here: the serving thread must not wait for the log
                logs.library_line(
                    __name__,
                    "no handler was found",
                    kind=type(error).__name__,
                    method=method,
                    exc_info=error,
                )
            try:
                self._decide(_call_of(method, context, method_exists=False), context)
                context.abort(*answer)
            finally:
                self._call_ended("unknown", code_of(context))

        return grpc.stream_unary_rpc_method_handler(refuse, None, None)

    def _guard_unary(
        self, method: str, handler: Handler
    ) -> Callable[[Iterator[bytes], Context], Any]:
        behavior, deserialize = handler.unary_unary, handler.request_deserializer
        kept = self._callbacks.kept

        def guarded(requests: Iterator[bytes], context: Context) -> Any:
            try:
                caller = self._decide(_call_of(method, context), context)
                request = self._one_message(requests, deserialize, context, caller)
                CALLER.set(caller)  # in a context of this call: grpcio makes one for each
                context.__class__ = kept[context.__class__]  # its callbacks run on our threads
                return call_servicer(method, behavior, request, context)
            finally:
                hung_up = not context.is_active()
                self._call_ended(method, "CANCELLED" if hung_up else code_of(context))

        return guarded

    def _guard_stream(
        self, method: str, handler: Handler
    ) -> Callable[[Iterator[bytes], Context, Send], None]:
        behavior = handler.stream_stream or handler.stream_unary or handler.unary_stream
        deserialize = handler.request_deserializer
        # A servicer may call ``send`` itself and return at once (grpcio's health service does).
        sends_itself = getattr(behavior, "experimental_non_blocking", False)

        def respond(requests: Iterator[bytes], context: Context, send: Send) -> None:
            argument = (
                messages(requests, deserialize, context)
                if handler.request_streaming
                else self._one_message(requests, deserialize, context, current_caller())
            )
            if sends_itself:
                call_servicer(method, behavior, argument, context, send)
            elif handler.response_streaming:
                call_servicer(method, send_all, behavior, argument, context, send)
            else:
                send(call_servicer(method, behavior, argument, context))

        def guarded(requests: Iterator[bytes], context: Context, send: Send) -> None:
            stream = ThreadedStream(lambda: respond(requests, context, stream.say), context, send)
            if sends_itself:
                stream.say = Outbox(stream.send, self.streams.run_later, context.cancel).put
            # Not on the serving thread: ``call_ended`` may be the host's code.
            ended = self._callbacks.of_call()
            ended.add(lambda: self._call_ended(method, stream.status))
            if not context.add_callback(ended.end):
                ended.end()  # the caller has hung up already
            call = _call_of(method, context)
            stream.caller = self._decide(call, context)
            stream.non_blocking = sends_itself
            self._watch.add(stream, stream.caller, call)
            if not context.add_callback(lambda: self._watch.remove(stream)):
                self._watch.remove(stream)  # the caller has hung up already
            add_callback = context.add_callback  # grpcio's own: these callbacks never block
            context.__class__ = self._callbacks.kept[context.__class__]
            if not self.streams.try_serve(stream, add_callback):
                _abort(context, Answer.OVERLOADED)

        # grpcio passes ``send`` to behaviors marked so, and does not wait for them.
        guarded.experimental_non_blocking = True  # type: ignore[attr-defined]
        return guarded

    def _decide(self, call: Call, context: Context) -> Caller:
        try:
            return self._core.admit(call)
        except Refusal as refusal:
            _abort(context, refusal.reason.answer)
            raise

    def _one_message(
        self,
        requests: Iterator[bytes],
        deserialize: Deserialize,
        context: Context,
        caller: Caller,
    ) -> Any:
        peer = "" if caller.peer is None else caller.peer.thumbprint
        try:
            message = self._timeouts.wait(requests, context, peer)
        except Refusal as refusal:
            _abort(context, refusal.reason.answer)
            raise
        if message is None:
            context.abort(*NOT_ONE_MESSAGE)
        return parse(message, deserialize, context)


def _call_of(method: str, context: Context, *, method_exists: bool = True) -> Call:
    return Call(method, context.invocation_metadata(), context.auth_context(), method_exists)


def _abort(context: Context, answer: Answer) -> None:
    code, text, trailers = answer_of(answer)
    context.set_trailing_metadata(trailers)
    context.abort(code, text)
