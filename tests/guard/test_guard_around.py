"""What may stand around the guard: other interceptors, and every way to write a servicer."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as aio_health
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from secure_server.guard import current_principal
from support.door import POLICY, Door, ask, open_door, silence, wait_until
from support.probe import KINDS, STYLES

UA, OK = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.OK
METHOD = "/probe.Probe/special"
OPEN_TO_ALL = '{"name": "all", "allow_rules": [{"name": "all"}]}'


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bearer(door: Door) -> str:
    return f"Bearer {door.token()}"


class Around:
    """An interceptor of the user's own: notes methods, and the callers of what it has wrapped."""

    def __init__(self, *, wraps: bool) -> None:
        self.methods: list[str] = []
        self.callers: list[str] = []
        self.raises: Exception | None = None
        self._wraps = wraps

    def _seen(self, handler: Any, method: str) -> Any:
        self.methods.append(method)
        if self.raises is not None:
            raise self.raises
        if handler is None or not self._wraps:
            return handler
        kind = f"{_form(handler.request_streaming)}_{_form(handler.response_streaming)}"
        return handler._replace(**{kind: self._around(getattr(handler, kind))})

    def _around(self, behavior: Any) -> Any:
        def note() -> None:
            self.callers.append(current_principal().subject)

        def plain(argument: Any, context: Any) -> Any:
            note()
            return behavior(argument, context)

        async def coroutine(argument: Any, context: Any) -> Any:
            note()
            return await behavior(argument, context)

        async def generator(argument: Any, context: Any) -> Any:
            note()
            async for response in behavior(argument, context):
                yield response

        if inspect.isasyncgenfunction(behavior):
            return generator
        return coroutine if inspect.iscoroutinefunction(behavior) else plain


def _form(streaming: bool) -> str:
    return "stream" if streaming else "unary"


class Threaded(Around, grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, details: Any) -> Any:
        return self._seen(continuation(details), details.method)


class Asyncio(Around, grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        return self._seen(await continuation(details), details.method)


def around(style: str, *, wraps: bool) -> Any:
    return (Asyncio if style.startswith("aio") else Threaded)(wraps=wraps)


@pytest.mark.parametrize("registered", [False, True])
def test_other_interceptors_before_and_after(tmp_path: Path, style: str, registered: bool) -> None:
    outer, inner = around(style, wraps=False), around(style, wraps=True)
    with open_door(
        tmp_path, style=style, outer=(outer,), inner=(inner,), registered=registered
    ) as door:
        channel = door.channel()
        for kind in KINDS:
            refused = ask(channel, kind)
            assert (refused.code, refused.responses) == (UA, [])
            assert inner.callers == []
            assert door.probe.parsed == []
            for _ in range(2):
                answered = ask(channel, kind, bearer(door))
                assert (answered.code, answered.responses) == (OK, [b"hello"])
            assert inner.callers == ["users/admin"] * 2
            assert len(door.probe.callers) == 2
            assert outer.methods[-3:] == inner.methods[-3:] == [f"/probe.Probe/{kind}"] * 3
            inner.callers.clear()
            door.probe.reset()
        assert ask(channel, "unary_unary", path="/no.such/Method").code is UA


def test_another_interceptor_before_that_wraps_what_the_guard_returns(tmp_path: Path) -> None:
    """On asyncio: whatever the method is, the guard's handlers are coroutines that write."""
    for style in STYLES:
        if not style.startswith("aio"):
            continue  # there a stream's handler takes three arguments, as grpcio's own kind does
        outer = around(style, wraps=True)
        outer._around = functools.partial
        (folder := tmp_path / style).mkdir()
        with open_door(folder, style=style, outer=(outer,)) as door:
            for kind in KINDS:
                assert ask(door.channel(), kind).code is UA
                assert ask(door.channel(), kind, bearer(door)).responses == [b"hello"]


@pytest.mark.parametrize("kind", KINDS)
def test_servicers_may_be_registered_by_method(tmp_path: Path, style: str, kind: str) -> None:
    with open_door(tmp_path, style=style, registered=True) as door:
        channel = door.channel()
        assert ask(channel, kind).code is UA
        assert ask(channel, kind, service="probe.Open").code is OK
        answered = ask(channel, kind, bearer(door))
        assert (answered.code, answered.responses) == (OK, [b"hello"])
        guest = ask(channel, kind, f"Bearer {door.token(roles=['guest'])}")
        assert guest.code is grpc.StatusCode.PERMISSION_DENIED
        with silence() as requests:
            silent = ask(
                channel,
                "stream_stream",
                path=f"/probe.Probe/{kind}",
                requests=requests,
                timeout=5,
            )
        assert silent.code is UA
        assert ask(channel, kind, path="/probe.Probe/other").code is UA
        assert len(door.probe.parsed) == len(door.probe.callers) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_behavior_may_be_a_partial_function(tmp_path: Path, style: str, kind: str) -> None:
    with open_door(tmp_path, style=style) as door:
        handler = door.probe.handler(kind)
        partial = functools.partial(
            type(door.probe).__dict__.get(kind) or getattr(type(door.probe), kind), door.probe
        )
        door.probe.others[METHOD] = handler._replace(**{kind: partial})
        assert ask(door.channel(), kind, path=METHOD).code is UA
        answered = ask(door.channel(), kind, bearer(door), path=METHOD)
        assert (answered.code, answered.responses) == (OK, [b"hello"])


def test_an_interceptors_exception_is_not_told_to_the_caller(
    tmp_path: Path, style: str, log: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    inner = around(style, wraps=False)
    with open_door(tmp_path, style=style, inner=(inner,)) as door:
        inner.raises = RuntimeError("hunter2")
        for authorization in (None, bearer(door)):
            answered = ask(door.channel(), "unary_unary", authorization)
            assert answered.code not in {OK, None}
            assert "hunter2" not in str(answered)
            if door.is_asyncio:
                assert answered.code is (UA if authorization is None else grpc.StatusCode.INTERNAL)
        assert door.probe.callers == []
        if door.is_asyncio:
            assert {line["event"] for line in log} == {"no handler was found"}
            assert caplog.records == []


def test_a_servicer_for_any_path_fills_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused callers invent methods: the caches stay bounded."""
    monkeypatch.setattr("secure_server.guard.adapters.asyncio._MOST_METHODS", 10)
    with open_door(tmp_path, style="aio-generator") as door:
        handler = door.probe.handler("unary_unary")
        monkeypatch.setattr(door.probe, "service", lambda _details: handler)
        channel = door.channel()
        for number in range(30):
            assert ask(channel, "unary_unary", path=f"/made.up/M{number}").code is UA
        assert len(door.stack.guard._wrapped) == 10


def test_paths_without_a_servicer_fill_no_cache(tmp_path: Path, style: str) -> None:
    """Callers invent such paths: decisions about them are not cached."""
    with open_door(tmp_path, style=style) as door:
        channel, authorization = door.channel(), bearer(door)
        assert ask(channel, "unary_unary", authorization).code is OK
        for number in range(5):
            unknown = ask(channel, "unary_unary", authorization, path=f"/probe.Probe/M{number}")
            assert unknown.code is grpc.StatusCode.UNIMPLEMENTED
        (known,) = door.core._recognition._callers._entries.values()
        _, decisions = known.decided
        assert list(decisions) == ["/probe.Probe/unary_unary"]


def test_a_servicer_may_be_replaced_while_the_server_runs(tmp_path: Path, style: str) -> None:
    with open_door(tmp_path, style=style) as door:
        channel, authorization = door.channel(), bearer(door)
        for answer in (b"one", b"two"):
            door.probe.others[METHOD] = grpc.unary_unary_rpc_method_handler(
                lambda _request, _context, answer=answer: answer
            )
            answered = ask(channel, "unary_unary", authorization, path=METHOD)
            assert answered.responses == [answer]


def test_a_handler_is_wrapped_once_a_method(tmp_path: Path, style: str) -> None:
    with open_door(tmp_path, style=style, registered=True) as door:
        channel, guard = door.channel(), door.stack.guard
        for _ in range(3):
            assert ask(channel, "unary_unary", bearer(door)).code is OK
        first = guard._wrapped.get("/probe.Probe/unary_unary")
        assert ask(channel, "unary_unary", bearer(door)).code is OK
        assert guard._wrapped.get("/probe.Probe/unary_unary") is first


@pytest.mark.parametrize("error", [ValueError("a secret"), SystemExit("a secret")])
def test_an_interceptors_exception_ends_only_its_call(
    tmp_path: Path, error: BaseException, log: list[dict[str, object]]
) -> None:
    """It runs on grpcio's one serving thread, which a SystemExit would end without a word."""

    class Raising(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            if details.method == METHOD:
                raise error
            return continuation(details)

    with open_door(tmp_path, style="threaded", inner=(Raising(),)) as door:
        channel = door.channel()
        for _ in range(2):
            answered = ask(channel, "unary_unary", bearer(door), path=METHOD)
            assert answered.code is grpc.StatusCode.INTERNAL
            assert "secret" not in answered.details
            assert ask(channel, "unary_unary", bearer(door)).code is OK
    assert [line["method"] for line in log if line["event"] == "no handler was found"] == [
        METHOD
    ] * 2


def health_door(root: Path, style: str, servicer: Any) -> Any:
    def more(server: Any) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    return open_door(root, style=style, policy=OPEN_TO_ALL, more=more, streams=4)


def watch_health(door: Door, change: Any) -> None:
    """Watch, see a change, hang up; more often than there are places for streams."""
    stub = health_pb2_grpc.HealthStub(door.channel())
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, 2
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == serving
    for _ in range(6):
        stream = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(stream).status == serving
        change(not_serving)
        assert next(stream).status == not_serving
        change(serving)
        assert next(stream).status == serving
        stream.cancel()
        wait_until(lambda: door.stack.open_streams == 0)


@pytest.mark.parametrize("own_pool", [False, True])
@pytest.mark.parametrize("non_blocking", [False, True])
def test_grpcios_health_service_on_threads(
    tmp_path: Path, own_pool: bool, non_blocking: bool
) -> None:
    with ThreadPoolExecutor(2) as pool:
        servicer = health.HealthServicer(non_blocking, pool if own_pool else None)
        with health_door(tmp_path, "threaded", servicer) as door:
            watch_health(door, lambda status: servicer.set("", status))


def test_grpcios_threaded_health_service_on_asyncio(tmp_path: Path) -> None:
    """Its ``Watch`` waits in a thread until a callback of the context tells it to stop."""
    servicer = health.HealthServicer()
    with health_door(tmp_path, "aio-plain", servicer) as door:
        watch_health(door, lambda status: servicer.set("", status))


def test_grpcios_own_health_service_on_asyncio(tmp_path: Path) -> None:
    from support.door import event_loop

    servicer = aio_health.HealthServicer()
    with health_door(tmp_path, "aio-generator", servicer) as door:
        event_loop().run(servicer.set("", health_pb2.HealthCheckResponse.SERVING))
        watch_health(door, lambda status: event_loop().run(servicer.set("", status)))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_reflection_passes_the_guard(tmp_path: Path, asynchronous: bool) -> None:
    def more(server: Any) -> None:
        reflection.enable_server_reflection([reflection.SERVICE_NAME], server)

    policy = POLICY.replace("/probe.Open/*", "/grpc.reflection.v1alpha.ServerReflection/*")
    for allowed in (False, True):
        (folder := tmp_path / str(allowed)).mkdir()
        with open_door(
            folder,
            style="aio-generator" if asynchronous else "threaded",
            policy=policy if allowed else POLICY,
            more=more,
        ) as door:
            stub = reflection_pb2_grpc.ServerReflectionStub(door.channel())
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            answers = stub.ServerReflectionInfo(iter([request]), timeout=10)
            if allowed:
                (answer,) = answers
                (service,) = answer.list_services_response.service
                assert service.name == reflection.SERVICE_NAME
            else:
                with pytest.raises(grpc.RpcError) as refused:
                    list(answers)
                assert refused.value.code() is UA


def test_a_threaded_servicer_that_sends_by_itself(tmp_path: Path) -> None:
    """``experimental_non_blocking``: it gets ``send``, returns, and sends from elsewhere."""
    senders: list[Any] = []

    def behavior(request: bytes, _context: Any, send: Any) -> None:
        senders.append(send)
        send(current_principal().subject.encode() + request)

    with sending(tmp_path, behavior) as (door, stream):
        assert next(stream) == b"users/admin!"
        (send,) = senders
        elsewhere = threading.Thread(target=lambda: (send(b"later"), send(None)))
        elsewhere.start()
        assert list(stream) == [b"later"]
        elsewhere.join()
        wait_until(lambda: (METHOD, "OK") in door.ended)


def test_a_threaded_servicer_that_sends_from_several_threads_at_once(tmp_path: Path) -> None:
    """grpcio drops a message sent during another one, and never returns to its sender."""
    message, threads, many = b"m" * 100_000, 4, 25

    def behavior(_request: bytes, _context: Any, send: Any) -> None:
        def all_of_them() -> None:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(send, [message] * threads * many))
            send(None)

        threading.Thread(target=all_of_them).start()

    with sending(tmp_path, behavior) as (door, stream):
        assert list(stream) == [message] * threads * many
        wait_until(lambda: (METHOD, "OK") in door.ended)


@contextmanager
def sending(folder: Path, behavior: Any) -> Iterator[tuple[Door, Iterator[bytes]]]:
    """A door with a servicer that sends by itself, and a call to it."""
    behavior.experimental_non_blocking = True
    behavior.experimental_thread_pool = None
    with open_door(folder) as door:
        door.probe.others[METHOD] = grpc.unary_stream_rpc_method_handler(behavior)
        metadata = (("authorization", bearer(door)),)
        yield door, door.channel().unary_stream(METHOD)(b"!", metadata=metadata, timeout=10)


def test_a_servicer_that_leaves_the_interpreter_answers_all_the_same(tmp_path: Path) -> None:
    """``SystemExit`` in a pool's thread is lost: the call would only end with its deadline."""

    def behavior(_request: bytes, _context: Any) -> bytes:
        raise SystemExit(3)

    with open_door(tmp_path) as door:
        door.probe.others[METHOD] = grpc.unary_unary_rpc_method_handler(behavior)
        metadata = (("authorization", bearer(door)),)
        with pytest.raises(grpc.RpcError) as ended:
            door.channel().unary_unary(METHOD)(b"!", metadata=metadata, timeout=10)
        assert ended.value.code() is grpc.StatusCode.INTERNAL


def test_a_long_refused_path_is_logged_shortened(tmp_path: Path) -> None:
    with open_door(tmp_path) as door:
        path = "/probe.Probe/" + "x" * 5000
        assert ask(door.channel(), "unary_unary", path=path).code is UA
        assert [len(event.method) for event in door.events] == [512]
