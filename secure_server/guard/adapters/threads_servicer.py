"""Runs a servicer's function on the threaded stack: its messages and its exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from secure_server import logs
from secure_server.guard.status import FAILED, PARSE_FAILED

Context = Any  # grpc.ServicerContext, without the methods that its type lacks
Send = Callable[[Any], None]
Deserialize = Callable[[bytes], Any] | None


def send_all(
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


def messages(
    requests: Iterator[bytes], deserialize: Deserialize, context: Context
) -> Iterator[Any]:
    for message in requests:
        yield parse(message, deserialize, context)


def parse(message: bytes | None, deserialize: Deserialize, context: Context) -> Any:
    if deserialize is None:
        return message
    try:
        return deserialize(message)  # type: ignore[arg-type] # without one, the call was aborted
    except Exception:  # noqa: BLE001 - a message of any service may fail in any way
        context.abort(*PARSE_FAILED)


def call_servicer(method: str, behavior: Callable[..., Any], *arguments: Any) -> Any:
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
