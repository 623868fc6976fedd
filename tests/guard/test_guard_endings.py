"""How calls end, in each style of servicer: by caller, by clock, by the servicer's fault."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from support.door import Door, ask, open_door, silence, wait_until
from support.probe import KINDS, STYLES

ASYNCIO = [style for style in STYLES if style.startswith("aio")]
IN_THREADS = ["threaded", "aio-plain"]
METHOD = "/probe.Probe/special"


@pytest.fixture(scope="module", params=STYLES)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door"), style=request.param) as door:
        yield door


@pytest.fixture
def door(shared: Door, caplog: pytest.LogCaptureFixture) -> Door:
    shared.probe.reset()
    shared.probe.others.clear()
    shared.ended.clear()
    caplog.set_level(logging.WARNING)
    return shared


def bearer(door: Door) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {door.token()}"),)


def call(door: Door, kind: str = "unary_unary", **more: Any) -> Any:
    return ask(door.channel(), kind, f"Bearer {door.token()}", path=METHOD, **more)


def some_then(door: Door, fail: Any) -> Any:
    """A server-streaming method that sends two responses and calls ``fail`` with its context."""

    def plain(_request: bytes, context: Any) -> Iterator[bytes]:
        yield b"1"
        yield b"2"
        fail(context)

    async def generator(_request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"
        if (later := fail(context)) is not None:
            await later

    async def writer(_request: bytes, context: Any) -> None:
        await context.write(b"1")
        await context.write(b"2")
        if (later := fail(context)) is not None:
            await later

    behavior = {"aio-generator": generator, "aio-writer": writer}.get(door.style, plain)
    return grpc.unary_stream_rpc_method_handler(behavior)


def test_a_servicer_may_fail_after_some_responses(
    door: Door, log: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_context: Any) -> None:
        raise ValueError("hunter2")

    door.probe.others[METHOD] = some_then(door, fail)
    answered = call(door, "unary_stream")
    assert answered.responses == [b"1", b"2"]
    assert answered.code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(answered)
    assert [line["event"] for line in log] == ["a servicer raised"]
    assert caplog.records == [], "grpcio logged it too"


def test_a_servicer_may_abort_after_some_responses_and_with_trailing_metadata(
    door: Door, log: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    def abort(context: Any) -> Any:
        context.set_trailing_metadata((("why", "because"),))
        return context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    door.probe.others[METHOD] = some_then(door, abort)
    answered = call(door, "unary_stream")
    assert (answered.responses, answered.code) == ([b"1", b"2"], grpc.StatusCode.DATA_LOSS)
    assert (answered.details, answered.trailers["why"]) == ("lost", "because")
    assert log == []
    assert caplog.records == []


@pytest.mark.parametrize("style", ASYNCIO)
def test_abort_takes_trailing_metadata_on_asyncio(tmp_path: Path, style: str) -> None:
    with open_door(tmp_path, style=style) as door:
        door.probe.behave = lambda _request, context: context.abort(
            grpc.StatusCode.NOT_FOUND, "gone", (("why", "because"),)
        )
        for kind in KINDS:
            answered = ask(door.channel(), kind, bearer(door)[0][1])
            assert (answered.code, answered.details) == (grpc.StatusCode.NOT_FOUND, "gone")
            assert answered.trailers["why"] == "because"


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_that_the_servicer_set_is_the_calls(door: Door, kind: str) -> None:
    def behave(_request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("gone")
        return b""

    door.probe.behave = behave
    answered = ask(door.channel(), kind, bearer(door)[0][1])
    assert (answered.code, answered.details) == (grpc.StatusCode.NOT_FOUND, "gone")
    wait_until(lambda: (f"/probe.Probe/{kind}", "NOT_FOUND") in door.ended)


@pytest.mark.parametrize("kind", KINDS)
def test_a_response_that_does_not_serialize_is_internal_and_leaks_nothing(
    door: Door, kind: str
) -> None:
    door.probe.behave = lambda _request, _context: 7
    if kind == "stream_unary":
        handler = door.probe.handler(kind)
        door.probe.others["/probe.Probe/stream_unary"] = handler._replace(
            response_serializer=lambda _response: door.probe._serialize(7)  # type: ignore[arg-type]
        )
        door.probe.behave = lambda request, _context: request
    answered = ask(door.channel(), kind, bearer(door)[0][1])
    assert answered.code is grpc.StatusCode.INTERNAL, answered
    assert "secret" not in answered.details
    assert "TypeError" not in answered.details


@pytest.mark.parametrize("kind", KINDS)
def test_a_caller_may_hang_up_in_the_middle(
    door: Door, kind: str, log: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    """The servicer is released and its ``finally`` runs; no error is logged."""
    arrived, closed = threading.Event(), threading.Event()
    hung_up = threading.Event()
    # This one is counted when its servicer has returned, which it does when it sees the caller go.
    returns_itself = (door.style, kind) == ("threaded", "unary_unary")

    def plain(_request: bytes, context: Any) -> bytes:
        if returns_itself:
            context.add_callback(hung_up.set)
        try:
            arrived.set()
            assert hung_up.wait(30)
        finally:
            closed.set()
        return b""

    async def later(_request: bytes, _context: Any) -> bytes:
        try:
            arrived.set()
            await asyncio.Event().wait()
        finally:
            closed.set()
        return b""

    door.probe.behave = plain if door.style in IN_THREADS else later
    with silence() as requests:

        def one_and_silence() -> Iterator[bytes]:
            yield b"hello"
            yield from requests

        method = f"/probe.Probe/{kind}"
        argument: Any = b"hello" if kind.startswith("unary") else one_and_silence()
        invoke = getattr(door.channel(), kind)(method)
        start = invoke.future if kind.endswith("unary") else invoke
        running = start(argument, metadata=bearer(door))
        assert arrived.wait(10)
        running.cancel()
        assert running.code() is grpc.StatusCode.CANCELLED
        wait_until(lambda: (method, "CANCELLED") in door.ended)
        if door.style == "aio-plain" and kind != "unary_unary":
            assert door.stack.open_streams == 1, "its thread is still in use"
        hung_up.set()
        assert closed.wait(10)
        wait_until(lambda: door.stack.open_streams == 0)
    assert log == []
    assert caplog.records == []


def test_a_reader_who_hangs_up_frees_the_slot_of_a_stream(tmp_path: Path) -> None:
    """grpcio itself would keep a plain generator, and its thread, for ever."""
    for style in STYLES:
        (folder := tmp_path / style).mkdir()
        with open_door(folder, style=style, streams=2) as door:
            channel = door.channel()
            for _ in range(6):
                closed = threading.Event()
                door.probe.others[METHOD] = door.probe.endless(closed.set)
                stream = channel.unary_stream(METHOD)(b"", metadata=bearer(door))
                assert next(stream) == b"more"
                stream.cancel()
                assert closed.wait(10), style
                wait_until(lambda door=door: door.stack.open_streams == 0)


@pytest.mark.parametrize("style", ASYNCIO)
def test_a_stream_keeps_its_slot_until_its_servicer_has_finished(
    tmp_path: Path, style: str
) -> None:
    at_the_end: list[int] = []
    with open_door(tmp_path, style=style) as door:
        door.probe.others[METHOD] = door.probe.endless(
            lambda: at_the_end.append(door.stack.open_streams)
        )
        stream = door.channel().unary_stream(METHOD)(b"", metadata=bearer(door))
        assert next(stream) == b"more"
        stream.cancel()
        wait_until(lambda: door.stack.open_streams == 0)
    assert at_the_end == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_deadline_ends_the_call_for_both(
    door: Door, kind: str, log: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    over, seen = threading.Event(), threading.Event()

    def plain(_request: bytes, context: Any) -> bytes:
        assert context.time_remaining() is not None
        while context.is_active() and not over.is_set():
            threading.Event().wait(0.01)
        seen.set()
        return b""

    async def later(_request: bytes, context: Any) -> bytes:
        assert context.time_remaining() is not None
        try:
            await asyncio.Event().wait()
        finally:
            seen.set()
        return b""

    door.probe.behave = plain if door.style in IN_THREADS else later
    try:
        answered = ask(door.channel(), kind, bearer(door)[0][1], timeout=0.5)
        assert answered.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert seen.wait(10)
    finally:
        over.set()
    assert log == []
    assert caplog.records == []


@pytest.mark.parametrize("style", ASYNCIO)
def test_hundreds_of_calls_that_end_early_leave_the_server_standing(
    tmp_path: Path, style: str, caplog: pytest.LogCaptureFixture
) -> None:
    """grpcio crashes where the context of a call that has ended is asked for its peer."""
    with open_door(tmp_path, style=style) as door:
        channel = door.channel()
        metadata = bearer(door)
        answers = [
            lambda request, context: request,
            lambda _request, context: context.abort(grpc.StatusCode.ABORTED, "no"),
        ]
        door.probe.behave = lambda request, context: answers[request[0] % 2](request, context)

        def one(number: int) -> None:
            kind = KINDS[number % 4]
            message = bytes([number // 4 % 2])
            invoke = getattr(channel, kind)(f"/probe.Probe/{kind}")
            start = invoke.future if kind.endswith("unary") else invoke
            argument: Any = message if kind.startswith("unary") else iter([message] * 3)
            known = metadata if number % 3 else (("authorization", f"Bearer {door.token()}"),)
            running = start(argument, metadata=known if number % 7 else (), timeout=20)
            if number % 5 < 3:
                for _ in range(number % 11 * 50):
                    pass  # hang up here or there
                running.cancel()
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                list(running) if kind.endswith("stream") else running.result()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(600)))
        wait_until(lambda: door.stack.open_streams == 0)
        door.probe.behave = lambda request, _context: request
        for kind in KINDS:
            assert ask(channel, kind, metadata[0][1]).code is grpc.StatusCode.OK
    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("style", IN_THREADS)
def test_a_plain_function_may_ask_its_context_after_its_caller_is_gone(
    tmp_path: Path, style: str
) -> None:
    arrived, gone = threading.Event(), threading.Event()
    asked: list[Any] = []

    def behave(_request: bytes, context: Any) -> bytes:
        if style == "threaded":  # its end is counted when the servicer has returned
            context.add_callback(gone.set)
        arrived.set()
        assert gone.wait(30)
        before = len(asked)
        asked.append(context.peer())
        asked.append(context.auth_context()["x509_common_name"])
        asked.append(dict(context.invocation_metadata())["user-agent"])
        asked.append(context.time_remaining())
        asked.append(context.is_active())
        asked.append(context.add_callback(lambda: None))
        assert len(asked) == before + 6
        context.set_code(grpc.StatusCode.NOT_FOUND)
        try:
            context.abort(grpc.StatusCode.NOT_FOUND, "not delivered")
        except Exception as error:
            asked.append(isinstance(error, grpc.RpcError))
            raise
        raise AssertionError

    with open_door(tmp_path, style=style) as door:
        door.probe.behave = behave
        running = (
            door.channel()
            .unary_unary("/probe.Probe/unary_unary")
            .future(b"", metadata=bearer(door))
        )
        assert arrived.wait(10)
        running.cancel()
        if style != "threaded":
            wait_until(lambda: door.ended == [("/probe.Probe/unary_unary", "CANCELLED")])
            gone.set()
        wait_until(lambda: len(asked) == 7)
        wait_until(lambda: door.ended == [("/probe.Probe/unary_unary", "CANCELLED")])
        if door.is_asyncio:
            assert asked[4:] == [False, False, True], "its context knows that the call is over"
        door.probe.behave = lambda request, _context: request
        assert ask(door.channel(), "unary_unary", bearer(door)[0][1]).code is grpc.StatusCode.OK


@pytest.mark.parametrize("style", IN_THREADS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_plain_function_sets_in_its_context_stays_in_its_call(
    tmp_path: Path, style: str, kind: str
) -> None:
    mine: ContextVar[str] = ContextVar("mine", default="untouched")
    seen: list[tuple[str, int]] = []

    def behave(request: bytes, _context: Any) -> bytes:
        seen.append((mine.get(), threading.get_ident()))
        mine.set("left behind")
        return request

    with open_door(tmp_path, style=style) as door:
        door.probe.behave = behave
        channel = door.channel()
        for _ in range(40):
            assert ask(channel, kind, bearer(door)[0][1]).code is grpc.StatusCode.OK
    assert {value for value, _ in seen} == {"untouched"}
    assert len({thread for _, thread in seen}) < 40, "no thread was used twice: nothing is proven"


@pytest.mark.parametrize("style", IN_THREADS)
def test_a_stop_iteration_of_a_plain_function_is_an_error_and_no_hang(
    tmp_path: Path, style: str, log: list[dict[str, object]]
) -> None:
    """``next(requests)`` without a default, where a caller sends nothing."""

    def first(requests: Iterator[bytes], _context: Any) -> bytes:
        return next(requests)

    with open_door(tmp_path, style=style) as door:
        door.probe.others[METHOD] = grpc.stream_unary_rpc_method_handler(first)
        answered = call(door, "stream_unary", messages=())
        assert answered.code is grpc.StatusCode.INTERNAL
        assert [line["event"] for line in log] == ["a servicer raised"]


@pytest.mark.parametrize("style", ["aio-generator"])
def test_a_servicers_own_cancelled_task_is_an_error_and_no_hang(
    tmp_path: Path, style: str, log: list[dict[str, object]]
) -> None:
    """grpcio would send no status, and the caller would wait for ever."""

    async def waits_for_another(_request: bytes, _context: Any) -> bytes:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task
        raise AssertionError

    with open_door(tmp_path, style=style) as door:
        door.probe.others[METHOD] = grpc.unary_unary_rpc_method_handler(waits_for_another)
        assert call(door).code is grpc.StatusCode.INTERNAL
        assert [line["event"] for line in log] == ["a servicer raised"]


@pytest.mark.parametrize("style", ASYNCIO)
def test_an_abort_that_the_servicer_swallows_stands(tmp_path: Path, style: str) -> None:
    def swallows(_request: bytes, context: Any) -> bytes:
        with pytest.raises(grpc.aio.AbortError):
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        return b"still here"

    async def swallows_later(_request: bytes, context: Any) -> bytes:
        with pytest.raises(grpc.aio.AbortError):
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        return b"still here"

    async def raises_instead(_request: bytes, context: Any) -> bytes:
        try:
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        finally:
            raise ValueError("hunter2")

    behaviors = [swallows] if style == "aio-plain" else [swallows_later, raises_instead]
    with open_door(tmp_path, style=style) as door:
        for behavior in behaviors:
            door.probe.others[METHOD] = grpc.unary_unary_rpc_method_handler(behavior)
            answered = call(door)
            assert (answered.code, answered.details) == (grpc.StatusCode.NOT_FOUND, "gone")
            assert answered.responses == []


@pytest.mark.parametrize("style", IN_THREADS)
def test_a_plain_function_has_the_whole_context(tmp_path: Path, style: str) -> None:
    """What servicers of the threaded stack use, they find on asyncio."""
    ended = threading.Event()

    def behave(request: bytes, context: Any) -> bytes:
        assert context.is_active()
        assert context.add_callback(ended.set)
        assert context.peer().startswith("ipv4:127.0.0.1:")
        assert context.auth_context()["transport_security_type"] == [b"ssl"]
        assert context.peer_identity_key() == "x509_subject_alternative_name"
        assert b"spiffe://example.org/client/admin" in context.peer_identities()
        assert 0 < context.time_remaining() <= 10
        assert dict(context.invocation_metadata())["user-agent"]
        context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"),))
        assert tuple(context.trailing_metadata()) == (("last", "2"),)
        context.set_code(grpc.StatusCode.OK)
        assert context.code() is grpc.StatusCode.OK
        context.disable_next_message_compression()
        return request

    with open_door(tmp_path, style=style) as door:
        door.probe.behave = behave
        invoke = door.channel().unary_unary("/probe.Probe/unary_unary")
        response, running = invoke.with_call(b"hello", metadata=bearer(door), timeout=10)
        assert response == b"hello"
        assert dict(running.initial_metadata())["first"] == "1"
        assert dict(running.trailing_metadata())["last"] == "2"
        assert ended.wait(10)
