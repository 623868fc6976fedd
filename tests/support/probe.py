"""A servicer that records its calls: one method of each kind, in each style of handler."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio

from secure_server.guard import current_caller

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Behave = Callable[[bytes, Any], Any]


class Probe(grpc.GenericRpcHandler):
    """Serves ``/probe.Probe/KIND`` and ``/probe.Open/KIND``, echoing, by plain functions.

    ``behave`` may be replaced to do anything else with a request; on asyncio it may return a
    coroutine.
    """

    def __init__(self) -> None:
        self.parsed: list[bytes] = []
        self.callers: list[Any] = []
        self.others: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        self.parsed.clear()
        self.callers.clear()
        self.behave: Behave = lambda request, _context: request

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if method in self.others:
            return self.others[method]
        _, _, path = method.partition("/probe.")
        service, _, kind = path.partition("/")
        if service not in {"Probe", "Open"} or kind not in KINDS:
            return None
        # A handler of its own for every look-up: the guard may not rely on getting the same one.
        return self.handler(kind)

    def handler(self, kind: str) -> Any:
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(getattr(self, kind), self._parse, self._serialize)

    def _parse(self, data: bytes) -> bytes:
        self.parsed.append(data)
        if data == b"unparsable":
            raise ValueError("a secret of the parser")
        return data

    def _serialize(self, response: bytes) -> bytes:
        if not isinstance(response, bytes):
            raise TypeError("a secret of the serializer")
        return response

    def _one(self, request: bytes, context: Any) -> Any:
        self.callers.append(current_caller())
        return self.behave(request, context)

    def unary_unary(self, request: bytes, context: Any) -> Any:
        return self._one(request, context)

    def unary_stream(self, request: bytes, context: Any) -> Any:
        yield self._one(request, context)

    def stream_unary(self, requests: Any, context: Any) -> Any:
        return b",".join([self._one(request, context) for request in requests])

    def stream_stream(self, requests: Any, context: Any) -> Any:
        for request in requests:
            yield self._one(request, context)

    # For tests that look into a stream: it writes until its caller hangs up.

    def endless(self, on_close: Callable[[], None]) -> Any:
        def endless(_request: bytes, _context: Any) -> Iterator[bytes]:
            try:
                while True:
                    yield b"more"
            finally:
                on_close()

        return grpc.unary_stream_rpc_method_handler(endless)


class GeneratorProbe(Probe):
    """The same by coroutine functions and async generators."""

    async def _later(self, request: bytes, context: Any) -> Any:
        response = self._one(request, context)
        return await response if inspect.isawaitable(response) else response

    async def unary_unary(self, request: bytes, context: Any) -> Any:
        return await self._later(request, context)

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[Any]:
        yield await self._later(request, context)

    async def stream_unary(self, requests: Any, context: Any) -> Any:
        return b",".join([await self._later(request, context) async for request in requests])

    async def stream_stream(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield await self._later(request, context)

    def endless(self, on_close: Callable[[], None]) -> Any:
        async def endless(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"more"
            finally:
                on_close()

        return grpc.unary_stream_rpc_method_handler(endless)


class WriterProbe(GeneratorProbe):
    """The same by coroutine functions that read and write."""

    async def unary_stream(self, request: bytes, context: Any) -> Any:  # type: ignore[override]
        await context.write(await self._later(request, context))

    async def stream_unary(self, _requests: Any, context: Any) -> Any:
        responses = []
        while (request := await context.read()) is not grpc.aio.EOF:
            responses.append(await self._later(request, context))
        return b",".join(responses)

    async def stream_stream(self, _requests: Any, context: Any) -> Any:  # type: ignore[override]
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(await self._later(request, context))

    def endless(self, on_close: Callable[[], None]) -> Any:
        async def endless(_request: bytes, context: Any) -> None:
            try:
                while True:
                    await context.write(b"more")
            finally:
                on_close()

        return grpc.unary_stream_rpc_method_handler(endless)


STYLES: dict[str, type[Probe]] = {
    "threaded": Probe,
    "aio-generator": GeneratorProbe,
    "aio-writer": WriterProbe,
    "aio-plain": Probe,
}
"""The stacks, and on asyncio how a servicer may be written."""
