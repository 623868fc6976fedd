"""The channel for asyncio: all four kinds of call, tokens, deadlines, and what is refused."""

import asyncio
import pickle
import threading
import traceback

import grpc
import pytest
from client_echo import KINDS, STREAMS, call, failure, method, serving
from client_fakes import Broken, Fixed, Renewing

import secure_client
from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_client import AccessToken, ConfigurationError, WorkloadTokenSource, aio
from secure_client._clock import Clock
from secure_client.tokens.renewing import Fetched, RenewingToken
from secure_tls import TLSFileError


def connect(world, running, **more):
    found = world.connection(running.port)
    return aio.connect(
        found.target,
        ca=found.ca,
        certificate=found.certificate,
        private_key=found.private_key,
        **more,
    )


def test_the_module_comes_on_first_use():
    assert secure_client.aio is aio
    assert aio.__all__ == ["connect", "watch_users"]


def test_C1_what_no_channel_can_be_built_of_is_refused_as_on_the_other_stack(world):
    bound = Fixed()
    bound.target = "good.example:443"
    certificate, key = world.client()

    async def main():
        for ca in (None, ""):
            with pytest.raises(ConfigurationError, match="in the clear"):
                aio.connect("localhost:1", ca=ca, tokens=Fixed())
        with pytest.raises(ConfigurationError, match="host:port"):
            aio.connect("http://localhost:1", ca=world.ca)
        with pytest.raises(ConfigurationError, match="do not go to"):
            aio.connect("evil.example:443", ca=world.ca, tokens=bound)
        with pytest.raises(TLSFileError):
            aio.connect("localhost:1", ca=world.ca, certificate=certificate)
        with pytest.raises(TLSFileError):
            aio.connect("localhost:1", ca=world.ca, private_key=key)

    asyncio.run(main())


def test_C1_a_plaintext_server_never_sees_a_token(shared_world):
    async def main():
        seen = []

        async def read(reader, writer):
            seen.append(await reader.read(4096))
            writer.close()

        server = await asyncio.start_server(read, "localhost", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            channel = aio.connect(f"localhost:{port}", ca=shared_world.ca, tokens=Fixed())
            async with channel:
                begun = call(channel, "unary_unary", timeout=1)
                with pytest.raises(grpc.RpcError):
                    await begun
        assert seen
        assert not any(b"token-a" in data for data in seen)

    asyncio.run(main())


def test_without_a_running_loop_there_is_no_channel(shared_world):
    with pytest.raises(RuntimeError, match="no running event loop"):
        aio.connect("localhost:1", ca=shared_world.ca)


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_of_every_kind_carries_the_token_once(world, kind):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Fixed()) as channel:
            assert await call(channel, kind) == b"a b"
            assert await call(channel, kind) == b"a b"
        assert echo.calls == [kind] * 2
        assert echo.tokens == [["Bearer token-a"]] * 2

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_source_no_credential_is_sent(world, kind):
    async def main():
        async with serving(world) as (echo, connect), connect() as channel:
            assert await call(channel, kind) == b"a b"
        assert echo.tokens == [[]]

    asyncio.run(main())


def test_generated_stubs_and_the_shipped_sources_work(world, running):
    source = WorkloadTokenSource(world.connection(running.port))

    async def main():
        async with connect(world, running, tokens=source) as channel:
            stub = TokenServiceStub(channel)
            assert (await stub.WhoAmI(pb.WhoAmIRequest())).certificate.subject
            answers = stub.Introspect(iter([pb.IntrospectRequest(correlation_id="1")]))
            assert [answer.correlation_id async for answer in answers] == ["1"]

    asyncio.run(main())
    (_, issued), (_, first), (_, second) = running.service.calls
    assert issued == []
    assert first == second
    assert first[0].startswith("Bearer ")


def test_a_stream_is_written_and_read_by_hand(world):
    async def main():
        async with serving(world) as (_, connect), connect(tokens=Fixed()) as channel:
            stream = method(channel, "stream_stream")()
            for part in (b"a", b"b"):
                await stream.write(part)
                assert await stream.read() == part
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_C2_a_source_that_fails_is_unavailable_without_its_text(world, kind, caplog):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Broken()) as channel:
            error = await failure(channel, kind)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        told = (
            error.details(),
            error.debug_error_string(),
            repr(error),
            "".join(traceback.format_exception(error)),
            pickle.dumps(error).decode("latin-1"),
            caplog.text,
        )
        assert not any("hunter2" in text for text in told)
        assert echo.calls == []

    asyncio.run(main())


@pytest.mark.parametrize("value", ["hunter2\r\nx: y", "hunter2é", None])
def test_C2_what_a_foreign_source_gives_is_no_metadata_before_it_is_a_token(
    world, value, caplog, capfd
):
    class Foreign:
        def token(self, *, refused=None):
            class Looks:
                pass

            Looks.value = value
            return Looks

    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Foreign()) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="no access token") as caught:
                await call(channel, "unary_unary")
        assert "hunter2" not in repr(caught.value) + caplog.text + "".join(capfd.readouterr())
        assert echo.calls == []

    asyncio.run(main())


def test_C9_no_secret_in_what_is_printed_or_pickled(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Fixed("hunter2")) as channel:
            echo.refused = {"Bearer hunter2"}
            begun = method(channel, "unary_unary")(b"a", metadata=(("x-key", "hunter2"),))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await begun
            told = [repr(channel), repr(begun), str(begun), repr(caught.value)]
            told += traceback.format_exception(caught.value)
            assert not any("hunter2" in text for text in told)
            assert b"hunter2" not in pickle.dumps(caught.value)
            for each in (channel, begun):
                with pytest.raises((TypeError, AttributeError)) as refused:
                    pickle.dumps(each)
                assert "hunter2" not in str(refused.value)

    asyncio.run(main())


def test_C5_a_refused_token_is_replaced_and_the_call_sent_once_more(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Renewing()) as channel:
            echo.refused = {"Bearer token-0"}
            for _ in range(2):
                begun = method(channel, "unary_unary")(b"a")
                assert await begun == b"a"
                assert await begun.code() is grpc.StatusCode.OK
        assert echo.tokens == [["Bearer token-0"], ["Bearer token-1"], ["Bearer token-1"]]

    asyncio.run(main())


def test_C5_one_retry_and_no_more(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Renewing()) as channel:
            echo.refused = {f"Bearer token-{n}" for n in range(9)}
            begun = method(channel, "unary_unary")(b"a")
            # The status is there without an `await` of the answer, too.
            assert await begun.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await begun.details() == "not authenticated"
            with pytest.raises(grpc.aio.AioRpcError):
                await begun
        assert echo.tokens == [["Bearer token-0"], ["Bearer token-1"]]

    asyncio.run(main())


def test_C5_where_there_is_no_fresh_token_the_first_answer_stands(world):
    class Once:
        def token(self, *, refused=None):
            if refused is not None:
                raise RuntimeError("the session is over")
            return AccessToken("token-0")

    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Once()) as channel:
            echo.refused = {"Bearer token-0"}
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(channel, "unary_unary")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert caught.value.details() == "not authenticated"
        assert echo.calls == ["unary_unary"]

    asyncio.run(main())


@pytest.mark.parametrize("kind", STREAMS)
def test_C5_a_stream_is_not_sent_again(world, kind):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Renewing()) as channel:
            echo.refused = {"Bearer token-0"}
            error = await failure(channel, kind)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert echo.calls == [kind]

    asyncio.run(main())


def test_a_refusal_without_tokens_is_not_sent_again(world, running):
    running.service.fail["WhoAmI"] = [grpc.StatusCode.UNAUTHENTICATED]

    async def main():
        async with connect(world, running) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await TokenServiceStub(channel).WhoAmI(pb.WhoAmIRequest())

    asyncio.run(main())
    assert running.service.names() == ["WhoAmI"]


def test_C3_a_hundred_calls_with_a_refused_token_fetch_one(world):
    fetched = []

    def fetch(refused):
        fetched.append(refused)
        return Fetched(AccessToken(f"token-{len(fetched)}"), 900)

    class Source:
        renewing = RenewingToken(fetch, Clock())

        def token(self, *, refused=None):
            return self.renewing.token(refused)

    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Source()) as channel:
            echo.refused = {"Bearer token-1"}
            answers = await asyncio.gather(*(call(channel, "unary_unary") for _ in range(100)))
        assert answers == [b"a b"] * 100
        assert {sent for (sent,) in echo.tokens} == {"Bearer token-1", "Bearer token-2"}

    asyncio.run(main())
    assert fetched == [None, AccessToken("token-1")]


def test_C4_a_token_is_renewed_while_calls_go_on(world):
    now = [1000.0]
    fetching, release = threading.Event(), threading.Event()

    def fetch(_):
        if not fetching.is_set() and now[0] == 1000.0:
            return Fetched(AccessToken("token-1"), 900)
        fetching.set()
        assert release.wait(30)
        return Fetched(AccessToken("token-2"), 900)

    class Source:
        renewing = RenewingToken(fetch, Clock(elapsed=lambda: now[0]))

        def token(self, *, refused=None):
            return self.renewing.token(refused)

    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Source()) as channel:
            await call(channel, "unary_unary")
            now[0] += 850
            # The renewal hangs, and no caller waits for it.
            await call(channel, "unary_unary")
            assert await asyncio.to_thread(fetching.wait, 30)
            await call(channel, "unary_unary")
            release.set()
            while echo.tokens[-1] != ["Bearer token-2"]:
                await call(channel, "unary_unary")
        assert echo.tokens[:3] == [["Bearer token-1"]] * 3

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_C8_a_source_that_blocks_does_not_block_the_loop(world, kind):
    async def main():
        loop, blocked, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        class Blocking:
            def token(self, *, refused=None):
                loop.call_soon_threadsafe(blocked.set)
                # On the loop's own thread this would deadlock.
                if not release.wait(30):
                    raise RuntimeError("not released")
                return AccessToken("token-a")

        async with (
            serving(world) as (echo, connect),
            connect(tokens=Blocking()) as held,
            connect() as free,
        ):
            begun = asyncio.create_task(call(held, kind))
            await blocked.wait()
            # The loop is not blocked: it serves both ends of these calls.
            for _ in range(10):
                assert await call(free, kind) == b"a b"
            assert not begun.done()
            release.set()
            assert await begun == b"a b"
        assert echo.tokens == [[]] * 10 + [["Bearer token-a"]]

    asyncio.run(main())


def test_an_idempotent_method_is_retried_on_unavailable_and_no_other(world, running):
    running.service.fail["WhoAmI"] = [grpc.StatusCode.UNAVAILABLE] * 2
    running.service.fail["Logout"] = [grpc.StatusCode.UNAVAILABLE]

    async def main():
        async with connect(world, running) as channel:
            stub = TokenServiceStub(channel)
            await stub.WhoAmI(pb.WhoAmIRequest())
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Logout(pb.LogoutRequest())

    asyncio.run(main())
    assert running.service.names() == ["WhoAmI"] * 3 + ["Logout"]


def test_a_named_method_is_retried(world, running):
    running.service.fail["Logout"] = [grpc.StatusCode.UNAVAILABLE]
    named = ["secure_api.tokens.v1.TokenService/Logout"]

    async def main():
        async with connect(world, running, idempotent_methods=named) as channel:
            await TokenServiceStub(channel).Logout(pb.LogoutRequest())

    asyncio.run(main())
    assert running.service.names() == ["Logout"] * 2


def test_a_unary_call_has_a_deadline_unless_it_sets_one_and_a_stream_has_none(world):
    async def main():
        async with serving(world) as (echo, connect), connect(timeout=0.2) as channel:
            echo.gate = asyncio.Event()
            stream = asyncio.create_task(call(channel, "unary_stream"))
            patient = asyncio.create_task(call(channel, "unary_unary", timeout=60))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(channel, "unary_unary")
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            echo.gate.set()
            assert await asyncio.gather(stream, patient) == [b"a b"] * 2
            begun = method(channel, "unary_unary")(b"a", timeout=60)
            assert 50 < begun.time_remaining() <= 60
            await begun

    asyncio.run(main())


def test_both_attempts_share_one_deadline(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Renewing()) as channel:
            echo.refused = {"Bearer token-0"}
            channel.look_and_wait = lambda: asyncio.sleep(0.3)
            await call(channel, "unary_unary", timeout=8)
        # On the wire a deadline this short is rounded to hundredths of a second.
        first, second = echo.remaining
        assert second < first - 0.2

    asyncio.run(main())


@pytest.mark.parametrize("tokens", [None, Fixed()])
def test_cancelling_the_task_that_awaits_a_call_cancels_the_call(world, tokens):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=tokens) as channel:
            echo.gate = asyncio.Event()
            begun = method(channel, "unary_unary")(b"a")
            ended = asyncio.Event()
            begun.add_done_callback(lambda done: ended.set() if done is begun else None)

            async def wait():
                await begun

            waiting = asyncio.create_task(wait())
            await echo.waiting.wait()
            assert not begun.done()
            assert not begun.cancelled()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            # The server notices.
            await echo.ended.wait()
            await ended.wait()
            assert begun.done()
            assert begun.cancelled()
            assert await begun.code() is grpc.StatusCode.CANCELLED
            assert begun.cancel() is False

    asyncio.run(main())


def test_cancelling_the_task_that_asks_for_the_status_cancels_nothing(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Fixed()) as channel:
            echo.gate = asyncio.Event()
            begun = method(channel, "unary_unary")(b"a")
            asking = asyncio.create_task(begun.code())
            await echo.waiting.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            echo.gate.set()
            assert await begun == b"a"
            assert dict(await begun.initial_metadata()) == {}
            assert dict(await begun.trailing_metadata()) == {}
            await begun.wait_for_connection()

    asyncio.run(main())


def test_a_call_cancelled_between_its_attempts_is_not_sent_again(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Renewing()) as channel:
            echo.refused = {"Bearer token-0"}
            looking, release = asyncio.Event(), asyncio.Event()

            async def look():
                looking.set()
                await release.wait()

            channel.look_and_wait = look
            begun = method(channel, "unary_unary")(b"a")
            await looking.wait()
            assert begun.cancel() is True
            with pytest.raises(asyncio.CancelledError):
                await begun
            assert begun.cancelled()
            assert await begun.code() is grpc.StatusCode.CANCELLED
        assert echo.calls == ["unary_unary"]

    asyncio.run(main())


def test_a_channel_closed_between_the_attempts_leaves_the_first_answer(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Renewing()) as channel:
            echo.refused = {"Bearer token-0"}
            channel.look_and_wait = channel.close
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(channel, "unary_unary")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "pair", [("X-Upper", "hunter2"), ("x", "hunter2\n"), ("x", b"hunter2\xff"), ("", "hunter2")]
)
def test_illegal_metadata_is_refused_before_the_call_and_without_its_value(world, kind, pair):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Fixed()) as channel:
            with pytest.raises(ValueError, match="metadata key") as caught:
                await call(channel, kind, metadata=(pair,))
            assert "hunter2" not in str(caught.value)
            assert not channel._rotation.current.busy()
        assert echo.calls == []

    asyncio.run(main())


def test_legal_metadata_of_every_shape_is_sent(world, running):
    async def main():
        async with connect(world, running, tokens=Renewing()) as channel:
            running.service.refused = {"Bearer token-0"}
            stub = TokenServiceStub(channel)
            pairs = (("x-any-bin", b"\x00\xff"), ("x.y_z-1", " printable ~"))
            # The iterator is needed for both attempts.
            for metadata in (pairs, list(pairs), iter(pairs), grpc.aio.Metadata(*pairs), None):
                await stub.WhoAmI(pb.WhoAmIRequest(), metadata=metadata)

    asyncio.run(main())
    assert len(running.service.calls) == 6


def test_a_request_that_cannot_be_sent_ends_with_an_error(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Fixed()) as channel:
            begun = method(channel, "unary_unary", lambda _: "no bytes")(b"")
            with pytest.raises(TypeError):
                await begun
            assert not channel._rotation.current.busy()
        assert echo.calls == []

    asyncio.run(main())


def test_the_name_of_the_server_is_verified(world):
    async def main():
        async with (
            serving(world) as (_, connect),
            connect(server_name="other.example") as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(channel, "unary_unary")
        assert "Hostname Verification" in caught.value.details()

    asyncio.run(main())
