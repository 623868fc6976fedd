"""The event loop answers cached calls itself; slow work never blocks it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from secure_server.auth import Credentials, Principal
from secure_server.auth.matchers import Prefix
from secure_server.authz import Policy
from support.door import ask, event_loop, open_door, silence, wait_until
from support.probe import KINDS, STYLES

ASYNCIO = [style for style in STYLES if style.startswith("aio")]
OK = grpc.StatusCode.OK


class Slow:
    """Recognises the credential ``slow``, once the test releases it."""

    name = "slow"
    matchers = (Prefix("slow"),)

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let = threading.Event()
        self.threads: set[int] = set()

    def authenticate(self, credentials: Credentials | None, peer: object) -> Principal | None:
        self.threads.add(threading.get_ident())
        assert credentials is not None
        self.entered.release()
        assert self.let.wait(30)
        return Principal(
            credentials.value, "issuer", "slow", roles=frozenset({"admin"}), expires_at=2.0**40
        )


@pytest.mark.parametrize("style", ASYNCIO)
@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_authenticator_does_not_hold_up_the_event_loop(
    tmp_path: Path, style: str, kind: str
) -> None:
    slow = Slow()
    with open_door(tmp_path, style=style, before=(slow,)) as door, ThreadPoolExecutor(1) as pool:
        channel, known = door.channel(), f"Bearer {door.token()}"
        assert ask(channel, kind, known).code is OK
        try:
            waiting = pool.submit(ask, channel, kind, "Bearer slow", timeout=30)
            assert slow.entered.acquire(timeout=10)
            for _ in range(10):
                assert ask(channel, kind, known, timeout=5).code is OK
            assert ask(channel, kind, f"Bearer {door.token()}", timeout=5).code is OK
            assert not waiting.done()
        finally:
            slow.let.set()
        assert waiting.result().code is OK
        assert event_loop().thread.ident not in slow.threads


@pytest.mark.parametrize("style", ASYNCIO)
def test_many_slow_authentications_do_not_delay_cached_callers(tmp_path: Path, style: str) -> None:
    """They fill the threads that recognise, and no other."""
    slow = Slow()
    with open_door(tmp_path, style=style, before=(slow,)) as door, ThreadPoolExecutor(40) as pool:
        channel, known = door.channel(), f"Bearer {door.token()}"
        assert ask(channel, "unary_unary", known).code is OK
        try:
            waiting = [
                pool.submit(ask, channel, "unary_unary", f"Bearer slow{number}", timeout=30)
                for number in range(40)
            ]
            for _ in range(16):
                assert slow.entered.acquire(timeout=10)
            for kind in KINDS:
                assert ask(channel, kind, known, timeout=5).code is OK
                assert ask(channel, kind, timeout=5).code is grpc.StatusCode.UNAUTHENTICATED
        finally:
            slow.let.set()
        assert {one.result().code for one in waiting} == {OK}


class NoThread:
    """In place of an executor."""

    def submit(self, *_function: Any) -> Any:
        raise AssertionError("a warm call left the event loop")

    def shutdown(self, *, wait: bool) -> None: ...


class Watched:
    """A policy that notes which thread asks it; it reads headers, so that it is always asked."""

    name = "watched"

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.threads: list[int] = []

    def reads_headers(self, method: str) -> bool:
        return True

    def names(self, method: str) -> bool:
        return self._policy.names(method)

    def decide(self, *arguments: Any, **named: Any) -> Any:
        self.threads.append(threading.get_ident())
        return self._policy.decide(*arguments, **named)


@pytest.mark.parametrize("style", ASYNCIO)
@pytest.mark.parametrize("kind", KINDS)
def test_a_warm_call_is_decided_on_the_event_loop(tmp_path: Path, style: str, kind: str) -> None:
    with open_door(tmp_path, style=style) as door:
        watched = Watched(door.policy.value)
        door.policy.change(watched)  # type: ignore[arg-type]
        channel, known = door.channel(), f"Bearer {door.token()}"
        assert ask(channel, kind, known).code is OK
        loop = event_loop().thread.ident
        assert watched.threads != [loop], "a cold call is decided in a thread"
        watched.threads.clear()
        threads, door.stack.guard._recognising = door.stack.guard._recognising, NoThread()
        try:
            for _ in range(20):
                assert ask(channel, kind, known).code is OK
            assert ask(channel, kind, service="probe.Open").code is OK, "so is the anonymous"
            assert ask(channel, kind).code is grpc.StatusCode.UNAUTHENTICATED
            unknown = ask(channel, kind, known, path="/probe.Probe/unknown")
            assert unknown.code is grpc.StatusCode.UNIMPLEMENTED
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(door, "token", lambda: "new")
                assert ask(channel, kind, "Bearer new").code is grpc.StatusCode.INTERNAL, (
                    "the trap does not work"
                )
        finally:
            door.stack.guard._recognising = threads
        watching = door.guard.watch._thread.ident  # it checks open streams again
        decided = [thread for thread in watched.threads if thread != watching]
        assert set(decided) == {loop}
        assert len(decided) == 23


@pytest.mark.parametrize("kind", KINDS)
def test_blocked_plain_functions_delay_no_refusal_and_no_event_loop(
    tmp_path: Path, kind: str
) -> None:
    """On grpcio's own thread pool six streams would have been enough, on a machine of two cores."""
    entered, let = threading.Semaphore(0), threading.Event()

    def wait(request: bytes, _context: Any) -> bytes:
        entered.release()
        assert let.wait(30)
        return request

    with open_door(tmp_path, style="aio-plain") as door, ThreadPoolExecutor(40) as pool:
        channel, known = door.channel(), f"Bearer {door.token()}"
        door.probe.behave = wait
        try:
            waiting = [pool.submit(ask, channel, kind, known, timeout=30) for _ in range(40)]
            for _ in range(16):
                assert entered.acquire(timeout=10)
            with silence() as requests:
                refused = ask(
                    channel,
                    "stream_stream",
                    path=f"/probe.Probe/{kind}",
                    requests=requests,
                    timeout=5,
                )
            assert refused.code is grpc.StatusCode.UNAUTHENTICATED
            door.probe.behave = lambda request, _context: request
            other = "unary_unary" if kind != "unary_unary" else "stream_stream"
            assert ask(channel, other, known, timeout=5).code is OK
        finally:
            let.set()
        assert {one.result().code for one in waiting} == {OK}


@pytest.mark.parametrize("style", ASYNCIO)
def test_silent_streams_leave_room_for_calls(tmp_path: Path, style: str) -> None:
    """G17: up to the cap they stay open; unary calls and refusals are still answered."""
    with (
        open_door(tmp_path, style=style, streams=40) as door,
        ThreadPoolExecutor(40) as pool,
        ExitStack() as silences,
    ):
        channel, known = door.channel(), f"Bearer {door.token()}"
        streams = [
            pool.submit(
                ask,
                channel,
                "stream_stream",
                known,
                requests=silences.enter_context(silence()),
                timeout=60,
            )
            for _ in range(40)
        ]
        wait_until(lambda: door.stack.open_streams == 40)
        assert ask(channel, "unary_unary", known, timeout=5).code is OK
        full = ask(channel, "stream_unary", known, timeout=5)
        assert full.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        refused = ask(channel, "stream_unary", timeout=5)
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED
        silences.close()
        assert {one.result().code for one in streams} == {OK}
        wait_until(lambda: door.stack.open_streams == 0)


def test_a_caller_who_hangs_up_while_being_recognised_never_reaches_the_servicer(
    tmp_path: Path,
) -> None:
    slow = Slow()
    with open_door(tmp_path, style="aio-generator", before=(slow,)) as door:
        running = (
            door.channel()
            .unary_unary("/probe.Probe/unary_unary")
            .future(b"hello", metadata=(("authorization", "Bearer slow"),))
        )
        try:
            assert slow.entered.acquire(timeout=10)
            running.cancel()
            wait_until(lambda: door.ended == [("/probe.Probe/unary_unary", "CANCELLED")])
        finally:
            slow.let.set()
        assert ask(door.channel(), "unary_unary", "Bearer slow").code is OK
        assert len(door.probe.callers) == 1
