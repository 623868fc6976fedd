"""A small servicer on both stacks, one method of each kind, and calls to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio

from secure_server import current_caller

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
REQUESTS = {
    "unary_unary": [b"a"],
    "unary_stream": [b"a"],
    "stream_unary": [b"a", b"b"],
    "stream_stream": [b"a", b"b"],
}
SECONDS = 10.0

ADMINS: dict[str, Any] = {
    "name": "greet",
    "allow_rules": [
        {
            "name": "admins",
            "source": {"roles": ["admin"]},
            "request": {"paths": ["/greet.Greeter/*"]},
        },
        {
            "name": "readers",
            "source": {"scopes": ["read"]},
            "request": {"paths": ["/greet.Greeter/unary_unary"]},
        },
    ],
}
AUDITED = ADMINS | {
    "audit_logging_options": {
        "audit_condition": "ON_DENY_AND_ALLOW",
        "audit_loggers": [{"name": "stdout_logger"}],
    }
}


def greet(*requests: bytes) -> bytes:
    """Say who calls, over which certificate, with which requests."""
    caller = current_caller()
    assert caller.peer is not None
    parts = [caller.principal.subject, str(caller.peer.spiffe_id)]
    return b" ".join([*(part.encode() for part in parts), *requests])


class Greeter:
    """Counts what reaches it."""

    def __init__(self) -> None:
        self.reached = 0

    def add_to(self, server: grpc.Server | grpc.aio.Server) -> None:
        methods = {
            kind: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(self, kind)) for kind in KINDS
        }
        server.add_registered_method_handlers("greet.Greeter", methods)

    def unary_unary(self, request: bytes, context: Any) -> bytes:
        self.reached += 1
        return greet(request)

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        self.reached += 1
        yield greet(request)

    def stream_unary(self, requests: Iterator[bytes], context: Any) -> bytes:
        self.reached += 1
        return greet(*requests)

    def stream_stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.reached += 1
        yield greet(*requests)


class AioGreeter(Greeter):
    """The same in coroutines and async generators."""

    async def unary_unary(self, request: bytes, context: Any) -> bytes:  # type: ignore[override]
        self.reached += 1
        return greet(request)

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:  # type: ignore[override]
        self.reached += 1
        yield greet(request)

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:  # type: ignore[override]
        self.reached += 1
        return greet(*[request async for request in requests])

    async def stream_stream(  # type: ignore[override]
        self, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        self.reached += 1
        yield greet(*[request async for request in requests])


def call(
    channel: grpc.Channel, kind: str = "unary_unary", metadata: Iterable[tuple[str, str]] = ()
) -> bytes | grpc.StatusCode:
    """Return what came back, or the status of a refusal."""
    method = getattr(channel, kind)(f"/greet.Greeter/{kind}")
    requests = REQUESTS[kind]
    argument = iter(requests) if kind.startswith("stream") else requests[0]
    try:
        answer = method(argument, timeout=SECONDS, metadata=tuple(metadata))
        return answer if kind.endswith("unary") else b"".join(answer)
    except grpc.RpcError as error:
        return error.code()


async def aio_call(
    channel: grpc.aio.Channel, kind: str = "unary_unary", metadata: Iterable[tuple[str, str]] = ()
) -> bytes | grpc.StatusCode:
    """Do the same on asyncio. Refusals of streams are for ``aio_refusal``."""
    method = getattr(channel, kind)(f"/greet.Greeter/{kind}")
    requests = REQUESTS[kind]
    argument = iter(requests) if kind.startswith("stream") else requests[0]
    try:
        answer = method(argument, timeout=SECONDS, metadata=tuple(metadata))
        if kind.endswith("unary"):
            return await answer
        return b"".join([message async for message in answer])
    except grpc.RpcError as error:
        return error.code()


async def aio_refusal(channel: grpc.aio.Channel, kind: str) -> grpc.StatusCode:
    """Return the status of a call that sends nothing where it need not.

    A client of grpc.aio that is still writing when the refusal comes loses its status (INTERNAL,
    "Internal error from Core").
    """
    method = getattr(channel, kind)(f"/greet.Greeter/{kind}")
    argument = () if kind.startswith("stream") else (b"a",)
    return await method(*argument, timeout=SECONDS).code()
