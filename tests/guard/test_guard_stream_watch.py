"""Open streams end when they are no longer allowed, whatever handler and peer are doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from asked_streams import (
    Asking,
    Revoked,
    asked_door,
    forbidden,
    over,
    revoked,
    revoked_certificate,
    trust,
)

from secure_server.authz import Policy
from secure_server.guard.streams.watch import _THREADS
from secure_tls.trust import Trust
from support.door import AUDITED, Door, open_door, wait_until
from support.open_streams import STREAMS, Open, hold
from support.probe import STYLES


@contextmanager
def opened(
    tmp_path: Path, style: str, kind: str, **settings: Any
) -> Iterator[tuple[Door, Open, Open]]:
    """A guarded server with two streams: one that must end, and another one."""
    with open_door(tmp_path, style=style, **settings) as door, ExitStack() as stack:
        stack.callback(hold(door))
        one = Open(door.channel(), kind, stack, door.token(jti="one", sub="users/one"))
        other = Open(door.channel(), kind, stack, door.token(jti="other", sub="users/other"))
        wait_until(lambda: len(door.probe.callers) == 2)
        yield door, one, other


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", STREAMS)
def test_G11_a_revoked_token_ends_its_streams_and_no_others(
    tmp_path: Path, style: str, kind: str
) -> None:
    revoked = Revoked()
    with opened(tmp_path, style, kind, revocations=revoked) as (door, one, other):
        before = time.monotonic()
        revoked.revoke("one")
        one.assert_ended("SESSION_ENDED", before)
        assert other.is_open
        assert [event.code for event in door.events] == ["revoked"]
        wait_until(lambda: len(door.guard.watch) == 1)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", STREAMS)
def test_G10_a_stream_ends_with_its_token(tmp_path: Path, style: str, kind: str) -> None:
    moment = [time.time()]
    with open_door(tmp_path, style=style, clock=lambda: moment[0]) as door, ExitStack() as stack:
        stack.callback(hold(door))
        now = int(moment[0])
        short = Open(door.channel(), kind, stack, door.token(iat=now, exp=now + 60))
        long = Open(door.channel(), kind, stack, door.token(iat=now, exp=now + 3600))
        wait_until(lambda: len(door.probe.callers) == 2)
        moment[0] = now + 69
        assert not short.ended.wait(0.5), "it ended within the leeway for clocks"
        moment[0] = now + 71
        short.assert_ended("SESSION_ENDED")
        assert long.is_open
        assert [event.code for event in door.events] == ["expired"]


@pytest.mark.parametrize("style", STYLES)
def test_G10_a_stream_whose_issuer_is_down_stays_open_until_its_token_expires(
    tmp_path: Path, style: str
) -> None:
    moment = [time.time()]
    now = moment[0]
    asking = Asking(lambda: moment[0], {"opaque-short": now + 60, "opaque-long": now + 3600})
    with (
        open_door(tmp_path, style=style, clock=lambda: moment[0], before=(asking,)) as door,
        ExitStack() as stack,
    ):
        stack.callback(hold(door))
        short = Open(door.channel(), "stream_stream", stack, "opaque-short")
        long = Open(door.channel(), "stream_stream", stack, "opaque-long")
        wait_until(lambda: len(door.probe.callers) == 2)
        asking.is_down = True
        moment[0] = now + 59
        wait_until(lambda: len(door.events) >= 2)
        assert short.is_open
        moment[0] = now + 61
        short.assert_ended("SESSION_ENDED")
        assert long.is_open


STREAMS_THAT_WAIT = 12
"""More than are asked about at once."""


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("change", "reason", "goes_on"),
    [
        (revoked, "SESSION_ENDED", True),
        (revoked_certificate, "SESSION_ENDED", False),
        (forbidden, "POLICY_CHANGED", True),
        (over, "SESSION_ENDED", True),
    ],
)
def test_G10_G11_G12_an_issuer_that_does_not_answer_puts_off_no_end(
    tmp_path: Path, style: str, change: Callable[..., None], reason: str, *, goes_on: bool
) -> None:
    """While it is being asked, and while a stream waits for its turn to be asked about."""
    with asked_door(tmp_path, style) as (door, asking, move, stack):
        channel = door.channel()
        ones = [
            Open(channel, "stream_stream", stack, "opaque-one") for _ in range(STREAMS_THAT_WAIT)
        ]
        other = Open(channel, "stream_stream", stack, "opaque-other")
        wait_until(lambda: len(door.probe.callers) == STREAMS_THAT_WAIT + 1)
        asking.answering.clear()
        move(2)
        wait_until(lambda: asking.waiting == _THREADS)
        assert all(one.is_open for one in ones)
        before = time.monotonic()
        change(door, move)
        for one in ones:
            one.assert_ended(reason, before)
        if goes_on:
            assert not other.ended.wait(1), "nothing has changed for it"
            asking.answering.set()
            wait_until(lambda: len(door.guard.watch) == 1)
            assert other.is_open


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", STREAMS)
def test_G12_a_new_policy_ends_the_streams_that_it_refuses(
    tmp_path: Path, style: str, kind: str
) -> None:
    with opened(tmp_path, style, kind) as (door, one, other):
        before = time.monotonic()
        door.policy.change(
            Policy.parse(
                '{"name": "new", "allow_rules": [{"name": "other", '
                '"source": {"request_principals": ["https://issuer/users/other"]}}]}'
            )
        )
        one.assert_ended("POLICY_CHANGED", before)
        assert other.is_open
        assert [event.code for event in door.events] == ["policy"]


@pytest.mark.parametrize("style", STYLES)
def test_G11_a_certificate_that_is_no_longer_trusted_ends_its_streams(
    tmp_path: Path, style: str
) -> None:
    with opened(tmp_path, style, "stream_stream") as (door, one, other):
        trust(door, Trust((door.authority.certificate,), {}))
        assert not one.ended.wait(0.6), "its authority is trusted"
        trust(door, Trust((), {}))
        one.assert_ended("SESSION_ENDED")
        other.assert_ended("SESSION_ENDED")
        assert {event.code for event in door.events} == {"certificate_authority"}


@pytest.mark.parametrize("style", STYLES)
def test_G11_a_peer_that_reads_nothing_does_not_hold_back_the_end_of_the_others(
    tmp_path: Path, style: str
) -> None:
    """Its own stream ends too: by its status, or without one where nothing goes out any more."""
    revoked = Revoked()
    with open_door(tmp_path, style=style, revocations=revoked) as door, ExitStack() as stack:
        closed, sent = threading.Event(), [0.0]

        def serialize(message: bytes) -> bytes:
            sent[0] = time.monotonic()
            return message * 10_000

        endless = door.probe.endless(closed.set)
        door.probe.others["/probe.Probe/unary_stream"] = grpc.unary_stream_rpc_method_handler(
            endless.unary_stream, response_serializer=serialize
        )
        channel = door.channel()
        metadata = (("authorization", f"Bearer {door.token(jti='one')}"),)
        full = channel.unary_stream("/probe.Probe/unary_stream")(b"", metadata=metadata)
        assert next(full)  # and then nothing is read
        stack.callback(hold(door))
        one = Open(door.channel(), "stream_stream", stack, door.token(jti="one"))
        wait_until(lambda: len(door.guard.watch) == 2)
        wait_until(lambda: time.monotonic() > sent[0] + 0.3)  # nothing more can be sent to it
        revoked.revoke("one")
        one.assert_ended("SESSION_ENDED")
        assert closed.wait(5)
        with pytest.raises(grpc.RpcError) as ended:
            list(full)
        assert ended.value.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.CANCELLED}


@pytest.mark.parametrize("style", STYLES)
def test_G11_a_stream_that_was_just_admitted_is_checked_too(tmp_path: Path, style: str) -> None:
    """What changes between the decision and the watch is not missed."""
    revoked = Revoked()
    with open_door(tmp_path, style=style, revocations=revoked) as door, ExitStack() as stack:
        stack.callback(hold(door))
        admitted = door.core.admit

        def late(*arguments: Any, **settings: Any) -> Any:
            caller = admitted(*arguments, **settings)
            revoked.revoke("one")
            return caller

        door.core.admit = late  # type: ignore[method-assign]
        Open(door.channel(), "stream_stream", stack, door.token(jti="one")).assert_ended(
            "SESSION_ENDED"
        )


class Counting:
    """A policy that says when it was asked."""

    name = "counting"

    def __init__(self, text: str) -> None:
        self._policy = Policy.parse(text)
        self.asked = threading.Event()

    def reads_headers(self, _method: str) -> bool:
        return False

    def names(self, _method: str) -> bool:
        return True

    def decide(self, *arguments: Any, **named: Any) -> Any:
        self.asked.set()
        return self._policy.decide(*arguments, **named)


@pytest.mark.parametrize("style", STYLES)
def test_a_stream_is_audited_once_however_often_it_is_decided_about(
    tmp_path: Path, style: str
) -> None:
    """By what is remembered of its caller, and by asking anew: neither lets anyone in."""
    with open_door(tmp_path, style=style, policy=AUDITED) as door, ExitStack() as stack:
        stack.callback(hold(door))
        stream = Open(door.channel(), "stream_stream", stack, door.token())
        wait_until(lambda: len(door.probe.callers) == 1)
        for number in range(10):
            if number % 2:
                trust(door, Trust((door.authority.certificate,), {}))
            policy = Counting(AUDITED)
            door.policy.change(policy)  # type: ignore[arg-type]
            assert policy.asked.wait(10)
        assert stream.is_open
        assert [event.allowed for event in door.events] == [True]


@pytest.mark.parametrize("style", STYLES)
def test_G12_an_anonymous_stream_that_a_new_policy_refuses_is_told_so(
    tmp_path: Path, style: str
) -> None:
    with open_door(tmp_path, style=style) as door, ExitStack() as stack:
        stack.callback(hold(door))
        path = "/probe.Open/stream_stream"
        stream = Open(door.channel(), "stream_stream", stack, None, path=path)
        wait_until(lambda: len(door.probe.callers) == 1)
        door.policy.change(
            Policy.parse(
                '{"name": "new", "allow_rules": [{"name": "known", '
                '"source": {"request_principals": ["*"]}}]}'
            )
        )
        stream.assert_ended("POLICY_CHANGED")
        assert [event.code for event in door.events] == ["anonymous_denied"]
