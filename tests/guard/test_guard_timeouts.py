"""Callers who are slow with their one request message: whose calls are ended, and until when.

On threads alone: on asyncio a call that waits for its message keeps no thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from secure_server.guard import timeouts
from support.door import AUDITED, Door, ask, open_door, silence, wait_until

METHOD = "/probe.Probe/unary_unary"
SHARE = 16
"""Messages that one peer may keep the guard waiting for while threads are scarce."""
THREADS = 40
SCARCE = THREADS // 2
OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED


class Clock:
    """In place of ``time``: it stands until the test moves it, and so do sleepers if it says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleepers = 0
        self.let_go = threading.Event()
        self.let_go.set()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.sleepers += 1
        self.let_go.wait(30)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(timeouts, "time", clock)
    yield clock
    clock.let_go.set()


class Slow:
    """Calls over one connection that were let in, and whose messages have not come."""

    def __init__(self, door: Door, calls: int, channel: grpc.Channel, stack: ExitStack) -> None:
        self._silence = stack.enter_context(ExitStack())
        self.ended = threading.Event()
        """One of them, at least."""
        admitted = len(door.events)
        method = channel.stream_unary(METHOD)
        self._calls = [method.future(self._message_at_last(), timeout=60) for _ in range(calls)]
        for call in self._calls:
            call.add_done_callback(lambda _call: self.ended.set())
        wait_until(lambda: len(door.events) >= admitted + calls)

    def _message_at_last(self) -> Iterator[bytes]:
        requests = self._silence.enter_context(silence())

        def messages() -> Iterator[bytes]:
            yield from requests
            yield b"hello"

        return messages()

    def wait(self) -> Counter[grpc.StatusCode]:
        """Wait until all have ended without their messages."""
        return Counter(call.code() for call in self._calls)

    def send(self) -> Counter[grpc.StatusCode]:
        """Send the messages; return how the calls end."""
        self._silence.close()
        return self.wait()


def are_served(door: Door, calls: int, channel: grpc.Channel) -> bool:
    """Whether so many slow calls at once are all served."""
    with ExitStack() as stack:
        slow = Slow(door, calls, channel, stack)
        slow.ended.wait(0.3)
        return slow.send() == {OK: calls}


def test_G17_slow_calls_are_all_served_where_threads_are_not_scarce(
    tmp_path: Path, clock: Clock
) -> None:
    """Though a peer has more than its share of them."""
    with open_door(tmp_path, threads=1000, policy=AUDITED) as door, ExitStack() as stack:
        slow = Slow(door, SHARE + 1, door.channel(), stack)
        clock.now += 5  # far longer than a peer has that is distrusted
        assert not slow.ended.wait(1.5), "the watch looks once a second"
        assert slow.send() == {OK: SHARE + 1}


def test_G17_nor_where_they_were_scarce_for_a_moment(tmp_path: Path, clock: Clock) -> None:
    with (
        open_door(tmp_path, threads=THREADS, policy=AUDITED) as door,
        ExitStack() as stack,
    ):
        other = door.authority.issue_client("other")
        clock.let_go.clear()
        slow = Slow(door, SHARE + 1, door.channel(), stack)
        others = Slow(door, SCARCE - SHARE, door.channel(other), stack)
        wait_until(lambda: clock.sleepers == 1)
        assert others.send() == {OK: SCARCE - SHARE}
        clock.now += 5
        clock.let_go.set()
        assert not slow.ended.wait(0.5)
        assert slow.send() == {OK: SHARE + 1}


def test_G17_a_peer_with_many_calls_none_of_which_is_slow_is_not_distrusted(
    tmp_path: Path, clock: Clock
) -> None:
    with (
        open_door(tmp_path, threads=THREADS, policy=AUDITED) as door,
        ExitStack() as stack,
    ):
        channel = door.channel()
        clock.let_go.clear()
        before = Slow(door, SCARCE + 1, channel, stack)
        wait_until(lambda: clock.sleepers == 1)
        assert before.send() == {OK: SCARCE + 1}
        clock.now += 5
        young = Slow(door, SCARCE + 1, channel, stack)
        clock.let_go.set()
        clock.let_go.clear()
        wait_until(lambda: clock.sleepers == 2)  # it has looked at them once
        assert young.send() == {OK: SCARCE + 1}
        clock.let_go.set()
        assert are_served(door, SHARE + 1, channel)


def test_G17_distrust_leaves_a_peer_its_share_and_ends(tmp_path: Path, clock: Clock) -> None:
    with (
        open_door(tmp_path, threads=THREADS, policy=AUDITED, patience=1e6) as door,
        ExitStack() as stack,
    ):
        channel, other = door.channel(), door.channel(door.authority.issue_client("other"))
        clock.let_go.clear()
        hoarded = Slow(door, SCARCE + 1, channel, stack)
        wait_until(lambda: clock.sleepers == 1)
        clock.now += 1
        clock.let_go.set()
        assert hoarded.wait() == {CANCELLED: SCARCE + 1}
        share = Slow(door, SHARE, channel, stack)
        assert ask(channel, "unary_unary").code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert share.send() == {OK: SHARE}
        theirs = Slow(door, SHARE, other, stack)
        assert ask(channel, "unary_unary").code is OK, "the calls of another peer are not its own"
        clock.now += 1
        assert not theirs.ended.wait(0.5), "they are trusted"
        assert theirs.send() == {OK: SHARE}
        silent = Slow(door, 1, channel, stack)
        clock.now += 1
        assert silent.wait() == {CANCELLED: 1}
        assert not are_served(door, SHARE + 1, channel)
        clock.now += timeouts._DISTRUST
        wait_until(lambda: are_served(door, SHARE + 1, channel), 30)
