"""The moment at which a stream ends with its token, by a clock that the test moves."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.door import open_door, wait_until
from support.open_streams import STREAMS, Open, hold
from support.probe import STYLES

LEEWAY = 10


class Clock:
    """``now`` is moved by the test; ``looks`` counts how often the watch on streams has asked."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.looks = 0

    def __call__(self) -> float:
        self.looks += threading.current_thread().name == "stream-watch"
        return self.now

    def move(self, now: float) -> None:
        """Return when the watch has looked at everything after this."""
        self.now = now
        before = self.looks
        wait_until(lambda: self.looks >= before + 3)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_server.guard.stream_watch.LOOK_EVERY", 0.01)


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
