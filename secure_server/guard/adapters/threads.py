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
from secure_server.guard.call import Call
from secure_server.guard.callbacks import Callbacks
from secure_server.guard.caller import CALLER, Caller, current_caller
from secure_server.guard.core import Core
from secure_server.guard.refusal import Answer, Refusal
from secure_server.guard.status import (
    FAILED,
    NOT_ONE_MESSAGE,
    PARSE_FAILED,
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
Context = Any  # grpc.ServicerContext, without the methods that its type lacks
Send = Callable[[Any], None]
Deserialize = Callable[[bytes], Any] | None


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
                context.__class__ = kept[
                    context.__class__
                ]  # its callbacks run on the guard's threads
                return _call(method, behavior, request, context)
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
                _messages(requests, deserialize, context)
                if handler.request_streaming
                else self._one_message(requests, deserialize, context, current_caller())
            )
            if sends_itself:
                _call(method, behavior, argument, context, send)
            elif handler.response_streaming:
                _call(method, _send_all, behavior, argument, context, send)
            else:
                send(_call(method, behavior, argument, context))

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
        return _parse(message, deserialize, context)


class ThreadedStream:
    """One open stream in the stream pool."""

    caller: Caller
    """Set when the stream was admitted."""

    def __init__(self, respond: Callable[[], None], context: Context, send: Send) -> None:
        self._respond = respond
        self._context = context
        self._send = send
        self._is_complete = False
        self._one_at_a_time = threading.Lock()
        self.non_blocking = False
        self.say: Send = self.send
        """The servicer sends through it; so does the end of its function."""

    @property
    def status(self) -> str:
        """The name of the stream's status, once it is over."""
        hung_up = self._context.code() is None and not self._is_complete
        return "CANCELLED" if hung_up else code_of(self._context)

    def serve(self) -> None:
        CALLER.set(self.caller)
        try:
            self._respond()
        except Exception:  # noqa: BLE001 - its status is set; what follows sends it
            self.non_blocking = False
        if not self.non_blocking and self._context.is_active():
            self.say(None)

    def send(self, response: Any) -> None:
        """Send a response, or the status for None. Never call it on the serving thread, which a
        message waits for.
        """
        # While another message is being sent, grpcio loses this one and waits for ever.
        with self._one_at_a_time:
            if response is None:
                if not self._context.is_active():
                    return  # the caller hung up, or the guard ended the stream: a status is sent once
                self._is_complete = True
            self._send(response)

    def end(self, answer: Answer = Answer.SERVER_ROTATING) -> None:
        """End the call with this answer, even while the handler is running."""
        code, text, trailers = answer_of(answer)
        self._context.set_trailing_metadata(trailers)
        self._context.set_code(code)
        self._context.set_details(text)
        if not self._context.is_active():
            return
        self._send(None)

    def cut(self) -> None:
        """End the call without an answer, and release the thread that sends to it."""
        self._context.cancel()


def _call_of(method: str, context: Context, *, method_exists: bool = True) -> Call:
    return Call(method, context.invocation_metadata(), context.auth_context(), method_exists)


def _abort(context: Context, answer: Answer) -> None:
    code, text, trailers = answer_of(answer)
    context.set_trailing_metadata(trailers)
    context.abort(code, text)


def _send_all(
    behavior: Callable[[Any, Context], Iterator[Any]], argument: Any, context: Context, send: Send
) -> None:
    responses = behavior(argument, context)
    for response in responses:
        send(response)
        if not context.is_active():
            # The caller is gone: a generator's ``finally`` runs now, not at a later collection.
            close = getattr(responses, "close", None)
            if close is not None:
                close()
            return


def _messages(
    requests: Iterator[bytes], deserialize: Deserialize, context: Context
) -> Iterator[Any]:
    for message in requests:
        yield _parse(message, deserialize, context)


def _parse(message: bytes | None, deserialize: Deserialize, context: Context) -> Any:
    if deserialize is None:
        return message
    try:
        return deserialize(message)  # type: ignore[arg-type] # without a message, the call was aborted above
    except Exception:  # noqa: BLE001 - a message of any service may fail in any way
        context.abort(*PARSE_FAILED)


def _call(method: str, behavior: Callable[..., Any], *arguments: Any) -> Any:
    """Call a servicer. If it raises, the call ends with the status that it had set, or INTERNAL;
    the exception's text never reaches the caller.
    """
    try:
        return behavior(*arguments)
    except BaseException as error:  # SystemExit too: the call would have no status at all
        context: Context = next(a for a in arguments if isinstance(a, grpc.ServicerContext))
        code = context.code()
        if type(error) is Exception and not error.args and code is not None:
            raise  # context.abort()
        if isinstance(error, grpc.RpcError) and not context.is_active():
            raise  # the caller hung up while the servicer read
        if code is not None and code is not grpc.StatusCode.OK:
            # set_code() and an exception: generated base classes do so for methods that are not
            # implemented.
            context.abort(code, (context.details() or b"").decode("utf-8", "replace"))
        logs.logger(__name__).error("a servicer raised", method=method, exc_info=error)
        context.abort(*FAILED)
