"""Streams under revocation: the command runs, and it detects violations."""

import json
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest

from benchmarks.crowd import Figures, Session
from benchmarks.open_streams import STATUS_LOST, IntrospectStream, Numbers, WatchStream
from benchmarks.streams import MUST_BE_NOUGHT, is_bad

ROOT = Path(__file__).parents[2]
ENDED = "UNAUTHENTICATED SESSION_ENDED"


TWO_SERVERS = """
import asyncio, json
from benchmarks.streams import measure
with asyncio.Runner() as runner:
    print(json.dumps(measure(runner, servers=2, streams=40, rounds=2)))
"""


@pytest.mark.timeout(120)
def test_revoked_sessions_end_their_streams_on_two_servers_and_no_others():
    """Nothing here is about time: that needs quiet."""
    # A process of its own: in this one grpcio has the event loop of other tests.
    done = subprocess.run(
        [sys.executable, "-c", TWO_SERVERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert figures["streams"] == 80
    assert figures["endings"].keys() - {STATUS_LOST} == {ENDED}
    assert sum(figures["endings"].values()) == 40
    assert figures["messages"] > 80
    assert figures["stream_end_p50_s"] > 0
    assert {name: figures[name] for name in MUST_BE_NOUGHT} == dict.fromkeys(MUST_BE_NOUGHT, 0)


# A count of zero means nothing unless the check detects violations.


@pytest.fixture
def stream():
    """An open one that has got 1 and 2 of 2."""
    numbers = Numbers()
    numbers.begun = numbers.acknowledged = 2
    made = WatchStream(numbers)
    made.take(1)
    made.take(2)
    return made


def counted(stream, session=None):
    session = session or Session("one")
    session.streams.append(stream)
    return Figures.of([session]).summary()


def test_an_open_stream_with_every_message_is_no_violation(stream):
    figures = counted(stream)
    assert not is_bad(figures)
    assert figures["messages"] == 2


@pytest.mark.parametrize("number", [2, 4, 1])
def test_a_message_that_comes_twice_late_or_after_a_gap_is_seen(stream, number):
    stream._numbers.acknowledged = number
    stream.take(number)
    figures = counted(stream)
    assert figures["streams_that_missed_messages"] == 1
    assert is_bad(figures)


def test_a_last_message_that_does_not_come_is_seen(stream):
    stream._numbers.acknowledged = 3
    assert counted(stream)["streams_that_missed_messages"] == 1


def test_a_stream_of_another_session_that_ends_is_seen(stream):
    stream.ended_at, stream.ending = 5.0, ENDED
    assert counted(stream)["wrong_streams_ended"] == 1


def test_a_stream_that_ended_before_its_session_was_revoked_is_seen(stream):
    stream.ended_at, stream.ending = 5.0, ENDED
    assert counted(stream, Session("one", revoked_at=6.0))["wrong_streams_ended"] == 1


def test_a_status_that_grpcio_lost_is_no_stream_left_open(stream):
    stream.ended_at, stream.ending = 7.0, STATUS_LOST
    figures = counted(stream, Session("one", revoked_at=6.0))
    assert not is_bad(figures)
    assert figures["endings"] == {STATUS_LOST: 1}


def test_only_a_sending_caller_can_lose_a_status(stream):
    nothing = grpc.aio.Metadata()
    text = 'Internal error from Core Failed "execute_batch"'
    error = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, text, "")
    assert IntrospectStream(Numbers(), "token")._ending(error) == STATUS_LOST
    assert stream._ending(error) == "INTERNAL"


def test_a_stream_that_outlives_its_session_is_seen(stream):
    assert counted(stream, Session("one", revoked_at=6.0))["streams_not_ended"] == 1


def test_a_stream_that_ends_without_its_reason_is_seen(stream):
    stream.ended_at, stream.ending = 7.0, "CANCELLED"
    assert counted(stream, Session("one", revoked_at=6.0))["streams_not_ended"] == 1


def test_streams_that_end_late_are_bad(stream):
    session = Session("one", [], revoked_at=6.0)
    for ended_at in (6.5, 7.5):
        late = WatchStream(stream._numbers)
        late.ended_at, late.ending = ended_at, ENDED
        session.streams.append(late)
    figures = Figures.of([session]).summary()
    assert figures["stream_end_max_s"] == 1.5
    assert is_bad(figures)
