"""Open streams: who may not go on is told so, whatever the handler and the peer are doing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from secure_server.auth import Principal
from secure_server.authz import Policy
from support.door import Door, open_door, silence, wait_until
from support.probe import STYLES

STREAMS = ("unary_stream", "stream_unary", "stream_stream")
STATUS = {
    "SESSION_ENDED": grpc.StatusCode.UNAUTHENTICATED,
    "POLICY_CHANGED": grpc.StatusCode.PERMISSION_DENIED,
}


class Revoked:
    """Revocations that a test makes."""

    is_current = True

    def __init__(self) -> None:
        self.generation = 0
        self.tokens: set[str] = set()

    def is_revoked(self, principal: Principal) -> bool:
        return principal.token_id in self.tokens

    def revoke(self, token_id: str) -> None:
        self.tokens.add(token_id)
        self.generation += 1


class Open:
    """A stream that stays open until somebody ends it."""

    def __init__(self, door: Door, kind: str, stack: ExitStack, token: str) -> None:
        requests = stack.enter_context(silence())

        def one_and_silence() -> Iterator[bytes]:
            yield b"hello"
            yield from requests

        argument: Any = b"hello" if kind == "unary_stream" else one_and_silence()
        invoke = getattr(door.channel(), kind)(f"/probe.Probe/{kind}")
        start = invoke.future if kind == "stream_unary" else invoke
        metadata = (("authorization", f"Bearer {token}"),)
        self.call = start(argument, metadata=metadata, timeout=60)
        self.ended = threading.Event()
        self.call.add_done_callback(lambda _call: self.ended.set())

    @property
    def is_open(self) -> bool:
        return not self.ended.is_set()

    def assert_ended(self, reason: str) -> None:
        assert self.ended.wait(5)
        assert self.call.code() is STATUS[reason], self.call.details()
        assert reason in str(self.call.trailing_metadata())


def hold(door: Door) -> Callable[[], None]:
    """Have the handler stay in its stream; returns what lets it go."""
    over = threading.Event()

    def plain(request: bytes, _context: Any) -> bytes:
        over.wait(30)
        return request

    async def later(request: bytes, _context: Any) -> bytes:
        await asyncio.Event().wait()
        return request

    door.probe.behave = plain if door.style in {"threaded", "aio-plain"} else later
    return over.set


@contextmanager
def opened(
    tmp_path: Path, style: str, kind: str, **settings: Any
) -> Iterator[tuple[Door, Open, Open]]:
    """A door with two streams: one that is to be ended, and another one."""
    with open_door(tmp_path, style=style, **settings) as door, ExitStack() as stack:
        stack.callback(hold(door))
        one = Open(door, kind, stack, door.token(jti="one", sub="users/one"))
        other = Open(door, kind, stack, door.token(jti="other", sub="users/other"))
        wait_until(lambda: len(door.probe.callers) == 2)
        yield door, one, other


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", STREAMS)
def test_G11_a_revoked_token_ends_its_streams_and_no_others(
    tmp_path: Path, style: str, kind: str
) -> None:
    revoked = Revoked()
    with opened(tmp_path, style, kind, revocations=revoked) as (door, one, other):
        revoked.revoke("one")
        one.assert_ended("SESSION_ENDED")
        assert other.is_open
        assert [event.code for event in door.events] == ["revoked"]
        wait_until(lambda: len(door.stack._watch) == 1)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", STREAMS)
def test_G10_a_stream_ends_with_its_token(tmp_path: Path, style: str, kind: str) -> None:
    moment = [time.time()]
    with open_door(tmp_path, style=style, clock=lambda: moment[0]) as door, ExitStack() as stack:
        stack.callback(hold(door))
        now = int(moment[0])
        short = Open(door, kind, stack, door.token(iat=now, exp=now + 60))
        long = Open(door, kind, stack, door.token(iat=now, exp=now + 3600))
        wait_until(lambda: len(door.probe.callers) == 2)
        moment[0] = now + 69
        assert not short.ended.wait(0.5), "it ended within the leeway for clocks"
        moment[0] = now + 71
        short.assert_ended("SESSION_ENDED")
        assert long.is_open
        assert [event.code for event in door.events] == ["expired"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", STREAMS)
def test_G12_a_new_policy_ends_the_streams_that_it_refuses(
    tmp_path: Path, style: str, kind: str
) -> None:
    with opened(tmp_path, style, kind) as (door, one, other):
        door.core.policy = Policy.parse(
            '{"name": "new", "allow_rules": [{"name": "other", '
            '"source": {"request_principals": ["https://issuer/users/other"]}}]}'
        )
        one.assert_ended("POLICY_CHANGED")
        assert other.is_open
        assert [event.code for event in door.events] == ["policy"]


@pytest.mark.parametrize("style", STYLES)
def test_G11_a_certificate_that_is_trusted_no_longer_ends_its_streams(
    tmp_path: Path, style: str
) -> None:
    from secure_tls.trust import Trust

    with opened(tmp_path, style, "stream_stream") as (door, one, other):
        door.core._peers.trust = Trust((door.authority.certificate,), {})
        assert not one.ended.wait(0.6), "its authority is trusted"
        door.core._peers.trust = Trust((), {})
        one.assert_ended("SESSION_ENDED")
        other.assert_ended("SESSION_ENDED")
        assert {event.code for event in door.events} == {"certificate_authority"}


@pytest.mark.parametrize("style", STYLES)
def test_a_peer_that_reads_nothing_does_not_hold_back_the_end_of_the_others(
    tmp_path: Path, style: str
) -> None:
    """Its own stream ends too: by its status, or without one where nothing goes out any more."""
    revoked = Revoked()
    with open_door(tmp_path, style=style, revocations=revoked) as door, ExitStack() as stack:
        closed = threading.Event()
        door.probe.others["/probe.Probe/unary_stream"] = door.probe.endless(closed.set)
        channel = door.channel()
        metadata = (("authorization", f"Bearer {door.token(jti='one')}"),)
        full = channel.unary_stream("/probe.Probe/unary_stream")(b"", metadata=metadata)
        assert next(full) == b"more"  # and then nothing is read
        stack.callback(hold(door))
        one = Open(door, "stream_stream", stack, door.token(jti="one"))
        wait_until(lambda: len(door.stack._watch) == 2)
        revoked.revoke("one")
        one.assert_ended("SESSION_ENDED")
        assert closed.wait(5)
        with pytest.raises(grpc.RpcError) as ended:
            list(full)
        assert ended.value.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.CANCELLED}


@pytest.mark.parametrize("style", STYLES)
def test_a_stream_that_was_just_let_in_is_looked_at_as_well(tmp_path: Path, style: str) -> None:
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
        Open(door, "stream_stream", stack, door.token(jti="one")).assert_ended("SESSION_ENDED")
