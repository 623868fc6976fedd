"""The watchdog: a stalled serving thread or loop is logged, and no other."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from secure_server.guard import watchdog
from secure_server.guard.callbacks import Callbacks
from secure_server.guard.watchdog import Watchdog
from support.door import Door, ask, event_loop, open_door, wait_until

OPEN = '{"name": "open", "allow_rules": [{"name": "all"}]}'
STALL = "/probe.Probe/stall"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(watchdog, "STALLED_AFTER", 0.5)


class Stalling(grpc.ServerInterceptor):
    """Blocks the serving thread, and nothing else."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        if details.method == STALL:
            self.wait_here()
        return continuation(details)

    def wait_here(self) -> None:
        self.release.wait(30)


@contextmanager
def stalled(door: Door, stalling: Stalling) -> Iterator[None]:
    """A call of the method that waits, on the way."""
    future = door.channel().unary_unary(STALL).future(b"", timeout=30)
    try:
        yield
    finally:
        stalling.release.set()
    with pytest.raises(grpc.RpcError) as ended:
        future.result()
    assert ended.value.code() is grpc.StatusCode.UNIMPLEMENTED


def lines(log: list[dict[str, object]], word: str) -> list[dict[str, object]]:
    return [line for line in log if word in str(line["event"])]


def test_grpcio_still_has_the_private_names_that_the_watchdog_uses() -> None:
    assert watchdog._SERVE is not None
    assert watchdog._STARTED is not None


@pytest.mark.parametrize("warm", [False, True])
def test_a_stall_is_logged_once_with_all_stacks_and_once_when_it_is_over(
    tmp_path: Path, log: list[dict[str, object]], warm: bool
) -> None:
    stalling = Stalling()
    with open_door(tmp_path, policy=OPEN, inner=(stalling,)) as door:
        dog = door.guard.watchdog
        if warm:
            answered = ask(door.channel(), "unary_unary", f"Bearer {door.token()}")
            assert answered.code is grpc.StatusCode.OK
        with stalled(door, stalling):
            wait_until(lambda: dog.stalled_seconds >= 1.0)
            assert dog.stalls == 1
            (line,) = lines(log, "is stalled")
            assert line["log_level"] == "error"
            stack = str(line["stack"])
            assert "(_serve):" in stack.splitlines()[0]  # the serving thread's is the first
            others = stack.index("in test_a_stall_is_logged_once")
            assert stack.index("in wait_here") < others
            assert len(stack) < 40_000
        wait_until(lambda: dog.stalled_seconds == 0)
        wait_until(lambda: len(lines(log, "runs again")) == 1)
        assert len(lines(log, "is stalled")) == 1
        answered = ask(door.channel(), "unary_unary", f"Bearer {door.token()}")
        assert answered.code is grpc.StatusCode.OK


def test_an_idle_server_a_busy_one_and_one_that_has_stopped_are_no_stall(
    tmp_path: Path, log: list[dict[str, object]]
) -> None:
    with open_door(tmp_path, policy=OPEN) as door:
        dog, channel = door.guard.watchdog, door.channel()
        token = f"Bearer {door.token()}"
        end = time.monotonic() + 1.5
        while time.monotonic() < end:  # three times as long as a stall takes
            assert ask(channel, "unary_unary", token).code is grpc.StatusCode.OK
        assert len(dog.threads) == 1
        end = time.monotonic() + 1.5
        while time.monotonic() < end:  # idle
            assert dog.stalled_seconds == 0
            time.sleep(0.05)
        door.stack.server.stop(0).wait()  # type: ignore[attr-defined]
        wait_until(lambda: not dog.threads)
        assert (dog.stalls, dog.stalled_seconds) == (0, 0)
    assert lines(log, "is stalled") == []


# The exception of a pool that accepts no more work ends grpcio's serving thread.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_serving_thread_that_has_ended_is_a_stall_until_its_server_is_stopped(
    tmp_path: Path, log: list[dict[str, object]]
) -> None:
    with open_door(tmp_path, policy=OPEN) as door:
        dog, channel = door.guard.watchdog, door.channel()
        token = f"Bearer {door.token()}"
        assert ask(channel, "unary_unary", token).code is grpc.StatusCode.OK
        assert not dog.has_ended
        door.stack._pool.shutdown()  # type: ignore[attr-defined]
        unanswered = channel.unary_unary("/probe.Probe/unary_unary").future(b"", timeout=60)
        wait_until(lambda: dog.has_ended)
        assert dog.stalled_seconds >= 0.5
        wait_until(lambda: dog.stalled_seconds >= 1.0)  # and the stall lasts
        assert dog.stalls == 1
        (line,) = lines(log, "has ended")
        assert line["log_level"] == "error"
        assert "Restart the process" in str(line["event"])
        assert not dog.threads
        unanswered.cancel()
        server: Any = door.stack.server  # type: ignore[attr-defined]
        server.stop(0)
        wait_until(lambda: not dog.has_ended)
        assert dog.stalled_seconds == 0
        # No thread is left to report the stop, which the fixture would wait for.
        server._state.stage = grpc._server._ServerStage.STOPPED


def test_two_servers_that_are_slow_in_turn_are_no_stall(tmp_path: Path) -> None:
    """A stall is one event handled for so long, not many events handled in that time."""
    stalling = Stalling()
    with open_door(tmp_path, policy=OPEN, inner=(stalling,)) as door:
        dog, channel = door.guard.watchdog, door.channel()
        stalling.wait_here = lambda: time.sleep(0.2)  # type: ignore[method-assign]
        for _ in range(8):
            assert ask(channel, "unary_unary", path=STALL).code is grpc.StatusCode.UNIMPLEMENTED
        assert dog.stalls == 0


PAUSED = """
import grpc, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from secure_server.guard import watchdog
from secure_server.guard.callbacks import Callbacks

watchdog.LOOK_EVERY, watchdog.STALLED_AFTER = 0.05, 0.5
dog = watchdog.Watchdog(Callbacks())

class Slow(grpc.ServerInterceptor):
    def intercept_service(self, continuation, details):
        dog.add_serving_thread()
        print("in it", flush=True)
        time.sleep(0.3)  # the process is paused in the middle of an event
        return continuation(details)

server = grpc.server(ThreadPoolExecutor(1), interceptors=[Slow()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    try:
        channel.unary_unary("/a/b")(b"", timeout=30)
    except grpc.RpcError as error:
        print(error.code().name, dog.stalls, flush=True)
server.stop(0).wait()
"""


def test_a_process_that_was_stopped_for_a_while_is_no_stall() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PAUSED)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "in it\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2)  # four times as long as a stall takes
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == "UNIMPLEMENTED 0\n"
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_blocked_loop_is_logged(tmp_path: Path, log: list[dict[str, object]]) -> None:
    def behave(_request: bytes, _context: Any) -> bytes:
        time.sleep(1.0)
        return b"blocked the loop"

    with open_door(tmp_path, style="aio-generator", policy=OPEN) as door:
        dog, channel = door.guard.watchdog, door.channel()
        token = f"Bearer {door.token()}"
        assert ask(channel, "unary_unary", token).code is grpc.StatusCode.OK
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert dog.stalled_seconds == 0
            time.sleep(0.05)
        door.probe.behave = behave
        assert ask(channel, "unary_unary", token).code is grpc.StatusCode.OK
        wait_until(lambda: len(lines(log, "the event loop runs again")) == 1)
        (line,) = lines(log, "the event loop is stalled")
        assert str(line["stack"]).startswith("loop:\n")
        assert "in behave" in str(line["stack"])
        assert (dog.stalls, dog.stalled_seconds) == (1, 0)
    assert event_loop().complaints == []


def test_a_loop_that_its_host_has_stopped_or_closed_is_no_stall() -> None:
    dog = Watchdog(Callbacks())

    async def add() -> None:
        dog.add_loop()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(add())
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert dog.stalled_seconds == 0
            time.sleep(0.05)
        assert dog.threads
    finally:
        loop.close()
    wait_until(lambda: not dog.threads)
    assert dog.stalls == 0
    dog.close()
