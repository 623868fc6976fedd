"""Servicers' callbacks run on threads of the guard's, never on the one that serves every call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as aio_health

from secure_server.guard import callbacks, current_caller
from secure_server.guard.callbacks import Callbacks
from support.door import Door, ask, event_loop, open_door, wait_until
from support.probe import KINDS

IN_THREADS = ["threaded", "aio-plain"]
METHOD = "/probe.Probe/callbacks"
OPEN = '{"name": "open", "allow_rules": [{"name": "all"}]}'


@pytest.fixture(params=IN_THREADS)
def door(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Door]:
    """Plain functions, on either stack, for every caller."""
    with open_door(tmp_path, style=request.param, policy=OPEN) as door:
        yield door


def call(door: Door, kind: str = "unary_unary", **settings: Any) -> Any:
    return ask(door.channel(), kind, f"Bearer {door.token()}", **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_run_in_order_with_their_caller_off_the_serving_thread(
    door: Door, kind: str, log: list[dict[str, object]]
) -> None:
    ran: list[Any] = []
    over = threading.Event()

    def raising() -> None:
        ran.append("raising")
        raise SystemExit("a secret")

    def behave(request: bytes, context: Any) -> bytes:
        assert context.add_callback(lambda: ran.append(current_caller().principal.subject))
        assert context.add_callback(raising)
        assert context.add_callback(lambda: ran.append(threading.current_thread().name))
        assert context.add_callback(lambda: ran.append(context.add_callback(print)))
        assert context.add_callback(over.set)
        return request

    door.probe.behave = behave
    assert call(door, kind).code is grpc.StatusCode.OK
    assert over.wait(10)
    assert ran == ["users/admin", "raising", "callback", False]
    (line,) = [line for line in log if "callback" in str(line["event"])]
    assert str(line["callback"]).endswith(".<locals>.raising")


def test_a_blocked_callback_blocks_no_other_call(door: Door) -> None:
    """On the serving thread it would hold up everything."""
    release, over = threading.Event(), threading.Event()

    def behave(request: bytes, context: Any) -> bytes:
        context.add_callback(release.wait if request == b"wait" else over.set)
        return request

    door.probe.behave = behave
    try:
        for _ in range(4):
            assert call(door, messages=(b"wait",)).code is grpc.StatusCode.OK
        assert call(door).code is grpc.StatusCode.OK
        assert over.wait(10)
    finally:
        release.set()


def test_callbacks_that_never_return_keep_their_share_of_the_threads_and_are_logged(
    door: Door, log: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_SHARE", 2)
    monkeypatch.setattr(callbacks, "_SLOW", 0.2)
    release, ran = threading.Event(), []
    over = threading.Event()

    def stuck() -> None:
        release.wait()
        ran.append("stuck")

    def serve(request: bytes, context: Any) -> bytes:
        context.add_callback(stuck)
        return request

    def behave(request: bytes, context: Any) -> bytes:
        context.add_callback(over.set)
        return request

    door.probe.others[METHOD] = grpc.unary_unary_rpc_method_handler(serve)
    door.probe.behave = behave
    try:
        for _ in range(5):
            assert call(door, path=METHOD).code is grpc.StatusCode.OK
        assert call(door).code is grpc.StatusCode.OK
        assert over.wait(10)
        wait_until(lambda: any("do not return" in str(line["event"]) for line in log))
        (line,) = [line for line in log if "do not return" in str(line["event"])]
        assert str(line["callbacks"]).endswith(".<locals>.stuck")
        assert line["running"] == 2
        assert "in stuck" in str(line["stack"])
        assert ran == []
    finally:
        release.set()
    wait_until(lambda: len(ran) == 5)


def test_the_number_of_callbacks_makes_no_new_kind() -> None:
    """A servicer may add one per message: then callers choose their number."""
    over, ran = threading.Event(), threading.Event()
    runner = Callbacks()
    for count in range(1, 18):
        for _ in range(16):
            call = runner.of_call()
            for _ in range(count):
                call.add(over.wait)
            call.end()
    other = runner.of_call()
    other.add(ran.set)
    other.end()
    assert ran.wait(10)
    over.set()
    runner.close(10)


def test_the_callbacks_of_a_stream_run_when_its_caller_hangs_up(door: Door) -> None:
    over = threading.Event()
    ran: list[str] = []

    def endless(_request: bytes, context: Any) -> Iterator[bytes]:
        context.add_callback(lambda: ran.append(threading.current_thread().name))
        context.add_callback(over.set)
        yield b"one"
        over.wait(30)

    door.probe.others[METHOD] = grpc.unary_stream_rpc_method_handler(endless)
    for _ in range(3):
        over.clear()
        stream = door.channel().unary_stream(METHOD)(b"", timeout=30)
        assert next(stream) == b"one"
        stream.cancel()
        assert over.wait(10)
    assert ran == ["callback"] * 3


def test_several_threads_may_add_callbacks(door: Door) -> None:
    ran: list[int] = []

    def behave(request: bytes, context: Any) -> bytes:
        def add(number: int) -> None:
            assert context.add_callback(lambda: ran.append(number))

        threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return request

    door.probe.behave = behave
    assert call(door).code is grpc.StatusCode.OK
    wait_until(lambda: sorted(ran) == list(range(20)))


def test_call_ended_is_not_called_on_the_serving_thread(tmp_path: Path) -> None:
    """It may be the host's own, and wait."""
    release = threading.Event()
    with open_door(tmp_path, policy=OPEN) as door:
        door.stack.guard._call_ended = lambda *_ended: release.wait(30)
        try:
            for _ in range(2):
                stream = door.channel().stream_stream("/probe.Probe/stream_stream")
                assert list(stream(iter([b"one"]), timeout=10)) == [b"one"]
        finally:
            release.set()


def test_no_callback_makes_garbage_for_the_collector(tmp_path: Path) -> None:
    """A context that referred to itself would keep every call's messages until it runs."""
    import gc

    with open_door(tmp_path, policy=OPEN) as door:
        contexts: list[int] = []

        class Tracked:
            def __del__(self) -> None:
                contexts.append(1)

        def behave(request: bytes, context: Any) -> bytes:
            context.tracked = Tracked()
            context.add_callback(lambda: context)
            return request

        door.probe.behave = behave
        gc.disable()
        try:
            for _ in range(5):
                assert call(door).code is grpc.StatusCode.OK
            wait_until(lambda: len(contexts) == 5)
        finally:
            gc.enable()


def test_a_server_may_stand_behind_two_guards(tmp_path: Path) -> None:
    over = threading.Event()

    class Second(grpc.ServerInterceptor):
        """Keeps callbacks as another guard does."""

        def __init__(self) -> None:
            self.callbacks = Callbacks()

        def intercept_service(self, continuation: Any, details: Any) -> Any:
            handler = continuation(details)

            def serve(request: bytes, context: Any) -> bytes:
                context.__class__ = self.callbacks.kept[context.__class__]
                return handler.unary_unary(request, context)  # type: ignore[no-any-return]

            return grpc.unary_unary_rpc_method_handler(serve)

    with open_door(tmp_path, policy=OPEN, inner=(Second(),)) as door:

        def behave(request: bytes, context: Any) -> bytes:
            assert context.add_callback(over.set)
            return request

        door.probe.behave = behave
        assert call(door).code is grpc.StatusCode.OK
        assert over.wait(10)


def test_a_closed_guard_waits_a_bounded_time_for_callbacks() -> None:
    runner, release, ran = Callbacks(), threading.Event(), []
    calls = [runner.of_call() for _ in range(3)]
    calls[0].add(lambda: time.sleep(0.2))
    calls[0].add(lambda: ran.append("a"))
    calls[1].add(release.wait)
    calls[0].end()
    runner.close(10)
    assert ran == ["a"]
    calls[1].end()  # calls in flight end as they would
    begun = time.monotonic()
    runner.close(0.2)
    assert time.monotonic() - begun < 5
    calls[2].add(lambda: ran.append("c"))
    calls[2].end()
    release.set()
    wait_until(lambda: ran == ["a", "c"])


def test_an_asyncio_server_outlives_a_crowd_of_cancelled_health_watches(tmp_path: Path) -> None:
    servicer = aio_health.HealthServicer()
    event_loop().run(servicer.set("", health_pb2.HealthCheckResponse.SERVING))
    request = health_pb2.HealthCheckRequest()

    def more(server: Any) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    with open_door(tmp_path, style="aio-generator", policy=OPEN, more=more) as door:
        seen: list[int] = []

        def watch(channel: grpc.Channel) -> None:
            stub = health_pb2_grpc.HealthStub(channel)
            for _ in range(75):
                stream = stub.Watch(request, timeout=10)
                seen.append(next(stream).status)
                stream.cancel()

        threads = [threading.Thread(target=watch, args=(door.channel(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [health_pb2.HealthCheckResponse.SERVING] * 300
        stub = health_pb2_grpc.HealthStub(door.channel())
        assert stub.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
        assert door.guard.watchdog.stalls == 0
