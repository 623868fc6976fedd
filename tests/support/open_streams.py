"""Streams that stay open until the guard or the test ends them, on either stack."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import grpc

from support.door import silence

STREAMS = ("unary_stream", "stream_unary", "stream_stream")
STATUS = {
    "SESSION_ENDED": grpc.StatusCode.UNAUTHENTICATED,
    "POLICY_CHANGED": grpc.StatusCode.PERMISSION_DENIED,
    "": grpc.StatusCode.UNAVAILABLE,
}


class Open:
    """A stream that stays open until the guard or the test ends it."""

    def __init__(
        self,
        channel: grpc.Channel,
        kind: str,
        stack: ExitStack,
        token: str | None,
        *,
        path: str | None = None,
        first: bytes = b"hello",
    ) -> None:
        """It sends its first message and is silent until ``stack`` is left."""
        requests = stack.enter_context(silence())

        def one_and_silence() -> Iterator[bytes]:
            yield first
            yield from requests

        argument: Any = first if kind == "unary_stream" else one_and_silence()
        invoke = getattr(channel, kind)(path or f"/probe.Probe/{kind}")
        start = invoke.future if kind == "stream_unary" else invoke
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self.call = start(argument, metadata=metadata, timeout=60)
        self.ended = threading.Event()
        self.ended_at = 0.0
        self.call.add_done_callback(self._note)

    def _note(self, _call: object) -> None:
        self.ended_at = time.monotonic()
        self.ended.set()

    @property
    def is_open(self) -> bool:
        return not self.ended.is_set()

    def assert_ended(self, reason: str, since: float | None = None) -> None:
        """It got the status of this reason; ``since`` is the moment from which it had a second."""
        assert self.ended.wait(5)
        assert self.call.code() is STATUS[reason], self.call.details()
        assert reason in str(self.call.trailing_metadata())
        assert since is None or self.ended_at - since < 1.0


class Holding(Protocol):
    """A server of the probe's: a ``Door``, or another one."""

    style: str
    probe: Any


def hold(door: Holding) -> Callable[[], None]:
    """Keep the handler in its stream; return the event that releases it."""
    over = threading.Event()

    def plain(request: bytes, _context: Any) -> bytes:
        over.wait(30)
        return request

    async def later(request: bytes, _context: Any) -> bytes:
        await asyncio.Event().wait()
        return request

    door.probe.behave = plain if door.style in {"threaded", "aio-plain"} else later
    return over.set
