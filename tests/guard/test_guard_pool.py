"""Where the system starts no more threads."""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from asked_streams import Revoked

from secure_server.guard.callbacks import Callbacks
from secure_server.guard.streams.pool import StreamPool
from secure_server.guard.thread_pool import ThreadPool
from secure_server.guard.watchdog import Watchdog
from secure_server.testing import guarded_server
from support.door import open_door, wait_until
from support.open_streams import Open, hold


def _refuse(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_pool_keeps_running_with_the_threads_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool(8, name="few")
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    begun, over = threading.Event(), threading.Event()
    first = pool.submit(lambda: begun.set() or over.wait(10))
    assert begun.wait(10)
    rest = [pool.submit(int) for _ in range(20)]  # not one of them raises
    over.set()
    assert first.result(10)
    assert [one.result(10) for one in rest] == [0] * 20
    pool.shutdown()


def test_a_pool_keeps_no_group_of_a_server_that_was_retired() -> None:
    streams = StreamPool(1)
    group = streams.group()
    kept = weakref.ref(group)
    streams.forget(group)
    del group
    gc.collect()
    assert kept() is None
    streams.close()


def test_a_watchdog_that_could_not_start_is_started_by_a_later_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watchdog = Watchdog(Callbacks())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        watchdog.add_serving_thread()  # does not raise: the call that triggers it is served
    assert not watchdog.threads  # so that the next call adds it
    watchdog.add_serving_thread()
    assert watchdog.threads
    assert "watchdog" in {thread.name for thread in threading.enumerate()}
    watchdog.close()


def test_an_own_server_keeps_running_when_no_more_threads_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("door"):
            _refuse(thread)
        started(thread)

    echo = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
    handler = grpc.method_handlers_generic_handler("a.Service", {"Echo": echo})
    policy = {"name": "open", "allow_rules": [{"name": "all"}]}
    before = {*threading.enumerate()}  # of servers that other tests have stopped
    with guarded_server(
        lambda server: server.add_generic_rpc_handlers((handler,)), policy=policy
    ) as server:
        monkeypatch.setattr(threading.Thread, "start", start)
        with server.channel("alice") as channel:
            calls = [channel.unary_unary("/a.Service/Echo").future(b"x") for _ in range(20)]
            assert [each.result(timeout=20) for each in calls] == [b"x"] * 20
        ours = {*threading.enumerate()} - before
        assert sum(each.name.startswith("door") for each in ours) == 1


def test_streams_are_watched_on_where_no_more_threads_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Thread.start
    refused = threading.Event()

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("stream-watch_"):
            refused.set()
            _refuse(thread)
        started(thread)

    revocations = Revoked()
    with open_door(tmp_path, revocations=revocations) as door, ExitStack() as stack:
        stack.callback(hold(door))
        one = Open(door.channel(), "stream_stream", stack, door.token(jti="one"))
        wait_until(lambda: len(door.probe.callers) == 1)
        looked, over = threading.Event(), threading.Event()
        stack.callback(over.set)
        door.guard.watch._workers.submit(lambda: looked.set() or over.wait(10))
        assert looked.wait(10)  # the one thread that there is
        monkeypatch.setattr(threading.Thread, "start", start)
        door.core._recognition._epoch.advance()  # it has to be authenticated again
        assert refused.wait(10)
        revocations.revoke("one")
        one.assert_ended("SESSION_ENDED")
