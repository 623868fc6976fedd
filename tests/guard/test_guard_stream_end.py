"""The moment at which a stream ends with its token, by a clock that the test moves."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from secure_server.guard.call import Call
from secure_server.guard.caller import Caller
from secure_server.guard.core import Core
from secure_server.guard.streams.watch import StreamWatch
from support.door import open_door, wait_until
from support.open_streams import STREAMS, Open, hold
from support.probe import STYLES

LEEWAY = 10


class Clock:
    """``now`` is moved by the test; ``looks`` counts the rounds of the watch on streams."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.looks = 0

    def __call__(self) -> float:
        # Once a round; checks within the round read the clock too.
        self.looks += sys._getframe(1).f_code is StreamWatch._look_at_all.__code__
        return self.now

    def move(self, now: float) -> None:
        """Return when the watch has looked at everything after this."""
        self.now = now
        before = self.looks
        wait_until(lambda: self.looks >= before + 3)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_server.guard.streams.watch.LOOK_EVERY", 0.01)


@pytest.mark.parametrize("style", STYLES)
def test_J13_streams_end_at_the_end_of_their_token_and_not_before(
    tmp_path: Path, style: str
) -> None:
    end = int(time.time()) + 600
    clock = Clock(end - 600)
    with open_door(tmp_path, style=style, clock=clock) as door, ExitStack() as stack:
        stack.callback(hold(door))
        streams = [
            Open(door.channel(), kind, stack, door.token(iat=end - 600, exp=end))
            for kind in STREAMS
        ]
        wait_until(lambda: len(door.probe.callers) == len(streams))
        for moment in (
            *(end - LEEWAY - 1, end - LEEWAY + 1),
            *(end - 1, end, end + 1),
            *(end + LEEWAY - 1, end + LEEWAY - 0.001),
        ):
            clock.move(moment)
            assert all(stream.is_open for stream in streams), moment - end
        # Within the leeway a stream is looked at once a second.
        clock.move(end + LEEWAY + 1)
        for stream in streams:
            stream.assert_ended("SESSION_ENDED")
        assert {event.code for event in door.events} == {"expired"}


@pytest.mark.parametrize("style", STYLES)
def test_J13_streams_end_at_the_very_moment_the_token_does(tmp_path: Path, style: str) -> None:
    end = int(time.time()) + 600
    clock = Clock(end - 600)
    with open_door(tmp_path, style=style, clock=clock) as door, ExitStack() as stack:
        stack.callback(hold(door))
        over, later = (
            [
                Open(door.channel(), kind, stack, door.token(iat=end - 600, exp=exp))
                for kind in STREAMS
            ]
            for exp in (end, end + 1)
        )
        wait_until(lambda: len(door.probe.callers) == 2 * len(STREAMS))
        clock.move(end + LEEWAY)
        for stream in over:
            stream.assert_ended("SESSION_ENDED")
        assert all(stream.is_open for stream in later)


@pytest.mark.parametrize("style", STYLES)
def test_J13_an_answer_holds_from_when_it_was_asked_for(
    tmp_path: Path, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token ends while the watch is asking about it: the next look is not put off by that."""
    end = int(time.time()) + 600
    clock = Clock(end - 600)
    recheck = Core.recheck

    def slowly(self: Core, call: Call) -> Caller:
        caller = recheck(self, call)
        if clock.now > end:
            clock.now = end + LEEWAY + 1
        return caller

    monkeypatch.setattr(Core, "recheck", slowly)
    with open_door(tmp_path, style=style, clock=clock) as door, ExitStack() as stack:
        stack.callback(hold(door))
        stream = Open(door.channel(), "stream_stream", stack, door.token(iat=end - 600, exp=end))
        wait_until(lambda: len(door.probe.callers) == 1)
        clock.move(end + LEEWAY - 0.5)
        stream.assert_ended("SESSION_ENDED")
