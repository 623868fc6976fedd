"""What a hundred streams leave behind whose callers hang up, or read nothing: nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from secure_server.authz import Policy
from support.door import AUDITED, Door, open_door, silence, wait_until
from support.open_streams import STREAMS
from support.probe import STYLES

MANY = 100
AT_ONCE = 20
"""Streams that there are places and threads for."""
NO_CALL = '{"name": "none", "allow_rules": [{"name": "none", "request": {"paths": ["/"]}}]}'


class Inside:
    """Has the handler stay until its caller is gone, and counts the calls that it is in."""

    def __init__(self, door: Door) -> None:
        self.entered = 0
        self.left = 0
        self._lock = threading.Lock()
        in_threads = door.style in {"threaded", "aio-plain"}
        door.probe.behave = self._plain if in_threads else self._later

    def enter(self) -> None:
        with self._lock:
            self.entered += 1

    def leave(self) -> None:
        with self._lock:
            self.left += 1

    def _plain(self, request: bytes, context: Any) -> bytes:
        self.enter()
        over = threading.Event()
        if context.add_callback(over.set):
            over.wait(30)
        self.leave()
        return request

    async def _later(self, request: bytes, _context: Any) -> bytes:
        self.enter()
        try:
            await asyncio.Event().wait()
        finally:
            self.leave()
        return request


def begin(channel: grpc.Channel, kind: str, stack: ExitStack) -> Any:
    """Open a stream, which sends one message and is silent."""
    requests = stack.enter_context(silence())

    def one_and_silence() -> Iterator[bytes]:
        yield b"hello"
        yield from requests

    method = getattr(channel, kind)(f"/probe.Probe/{kind}")
    start = method.future if kind.endswith("unary") else method
    return start(b"hello" if kind.startswith("unary") else one_and_silence(), timeout=60)


def assert_nothing_is_left(door: Door, inside: Inside) -> None:
    wait_until(lambda: len(door.guard.watch) == 0)
    wait_until(lambda: len(door.guard.streams) == 0)
    wait_until(lambda: door.stack.open_streams == 0)
    wait_until(lambda: inside.left == inside.entered)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", STREAMS)
def test_callers_who_hang_up(tmp_path: Path, style: str, kind: str) -> None:
    """Before they are let in, just then, and when the handler has begun."""
    with (
        open_door(tmp_path, style=style, streams=AT_ONCE, policy=AUDITED) as door,
        ExitStack() as stack,
    ):
        inside, channel = Inside(door), door.channel()
        for number in range(MANY):
            admitted, entered = len(door.events), inside.entered
            stream = begin(channel, kind, stack)
            if number % 4 == 1:
                wait_until(lambda admitted=admitted: len(door.events) > admitted)
            elif number % 4 > 1:
                wait_until(lambda entered=entered: inside.entered > entered)
            stream.cancel()
        assert_nothing_is_left(door, inside)
        entered = inside.entered
        again = [begin(channel, kind, stack) for _ in range(AT_ONCE)]
        wait_until(lambda: inside.entered == entered + AT_ONCE)
        for stream in again:
            stream.cancel()
        assert_nothing_is_left(door, inside)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("hang_up", [False, True])
def test_peers_that_read_nothing(
    tmp_path: Path, style: str, monkeypatch: pytest.MonkeyPatch, *, hang_up: bool
) -> None:
    """They are ended by a new policy, or hang up, while the handler waits for them to read."""
    monkeypatch.setattr("secure_server.guard.streams.watch.LOOK_EVERY", 0.01)
    with open_door(tmp_path, style=style, streams=AT_ONCE, policy=AUDITED) as door:
        inside, channel = Inside(door), door.channel()
        method = "/probe.Probe/unary_stream"
        door.probe.others[method] = grpc.unary_stream_rpc_method_handler(
            door.probe.endless(inside.leave).unary_stream,
            response_serializer=lambda message: message * 100_000,
        )
        open_to_all = door.policy.value
        for _ in range(MANY // AT_ONCE):
            streams = [channel.unary_stream(method)(b"", timeout=60) for _ in range(AT_ONCE)]
            for stream in streams:
                assert next(stream)  # and then nothing is read
                inside.enter()
            assert len(door.guard.watch) == AT_ONCE
            if hang_up:
                for stream in streams:
                    stream.cancel()
            else:
                door.policy.change(Policy.parse(NO_CALL))
            assert_nothing_is_left(door, inside)
            door.policy.change(open_to_all)
            for stream in streams:
                stream.cancel()
