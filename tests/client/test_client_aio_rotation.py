"""The channel for asyncio while its certificate is replaced, and when it is closed."""

import asyncio
import gc
import threading
import weakref

import grpc
import pytest
from client_echo import KINDS, call, failure, method, serving
from client_fakes import Fixed, Renewing

from secure_client._lines import Lines


async def until_closed(channel):
    while channel.get_state() is not grpc.ChannelConnectivity.SHUTDOWN:
        await channel.wait_for_state_change(channel.get_state())


@pytest.mark.parametrize("kind", KINDS)
def test_C7_a_new_certificate_is_used_and_calls_in_flight_finish(world, kind):
    async def main():
        async with serving(world) as (echo, connect), connect() as channel:
            echo.gate = asyncio.Event()
            in_flight = asyncio.create_task(call(channel, kind))
            await echo.waiting.wait()
            old = channel._lines.current

            world.client()
            await channel.look()
            assert old.busy()
            later = asyncio.create_task(call(channel, kind))
            echo.gate.set()
            assert await asyncio.gather(in_flight, later) == [b"a b"] * 2
            # What is out of date is closed once its last call has ended, and only then.
            await until_closed(old.channel)
        before, after = echo.certificates
        assert before != after

    asyncio.run(main())


def test_C7_a_new_certificate_asks_for_another_token(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Renewing()) as channel:
            await call(channel, "unary_unary")
            world.client()
            await channel.look()
            await call(channel, "unary_unary")
        assert echo.tokens == [["Bearer token-0"], ["Bearer token-1"]]

    asyncio.run(main())


def test_C7_a_refused_call_is_sent_again_with_the_certificate_of_now(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Renewing()) as channel:
            echo.refused = {"Bearer token-0"}
            method_of_then = method(channel, "unary_unary")
            world.client()
            assert await method_of_then(b"a") == b"a"
        before, after = echo.certificates
        assert before != after
        assert echo.tokens == [["Bearer token-0"], ["Bearer token-1"]]

    asyncio.run(main())


def test_C7_a_half_replaced_pair_is_not_used(world):
    async def main():
        async with serving(world) as (echo, connect), connect() as channel:
            await call(channel, "unary_unary")
            certificate = world.folder / "alice.pem"
            old = certificate.read_bytes()
            certificate.write_bytes(world.authority.issue_client("alice").certificate_pem)
            await channel.look()
            await call(channel, "unary_unary")
            certificate.write_bytes(old)
            await channel.look()
            await call(channel, "unary_unary")
            world.client()
            await channel.look()
            await call(channel, "unary_unary")
        assert len(set(echo.certificates[:3])) == 1
        assert echo.certificates[3] != echo.certificates[0]

    asyncio.run(main())


def test_C7_the_files_are_looked_at_also_while_there_are_no_calls(world, monkeypatch):
    monkeypatch.setattr("secure_client.aio.LOOK_EVERY", 0.01)

    async def main():
        async with serving(world) as (_, connect), connect() as channel:
            old = channel._lines.current
            world.client()
            await until_closed(old.channel)
            assert channel._lines.current is not old

    asyncio.run(main())


def test_C8_a_disk_that_hangs_does_not_block_the_loop(world, monkeypatch):
    hanging, release = threading.Event(), threading.Event()
    renewal = Lines.renewal

    def hang(lines):
        hanging.set()
        if not release.wait(30):
            raise RuntimeError("not released")
        return renewal(lines)

    monkeypatch.setattr(Lines, "renewal", hang)

    async def main():
        async with serving(world) as (echo, connect), connect() as channel:
            world.client()
            looking = asyncio.create_task(channel.look())
            assert await asyncio.to_thread(hanging.wait, 30)
            for _ in range(10):
                await call(channel, "unary_unary")
            assert not looking.done()
            # Whoever comes second waits for the first, and both see what it finds.
            second = asyncio.create_task(channel.look())
            release.set()
            await asyncio.gather(looking, second)
            await call(channel, "unary_unary")
        assert len(set(echo.certificates[:10])) == 1
        assert echo.certificates[10] != echo.certificates[0]

    asyncio.run(main())


def test_a_look_that_fails_is_made_again(world, monkeypatch, caplog):
    renewal, failures = Lines.renewal, [RuntimeError("hunter2")]

    def fail(lines):
        if failures:
            raise failures.pop()
        return renewal(lines)

    monkeypatch.setattr(Lines, "renewal", fail)

    async def main():
        async with serving(world) as (_, connect), connect() as channel:
            old = channel._lines.current
            world.client()
            await channel.look()
            assert channel._lines.current is old
            await channel.look()
            assert channel._lines.current is not old
        assert "RuntimeError" in caplog.text
        assert "hunter2" not in caplog.text

    asyncio.run(main())


def test_no_call_is_counted_for_ever(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Fixed()) as channel:
            line = channel._lines.current
            for kind in KINDS:
                await call(channel, kind)
                echo.refused = {"Bearer token-a"}
                await failure(channel, kind)
                echo.refused = set()
                with pytest.raises(TypeError):
                    method(channel, kind)(b"", no_such_option=1)
                cancelled = method(channel, kind)(b"" if kind.startswith("unary") else None)
                ended = asyncio.Event()
                cancelled.add_done_callback(lambda _, ended=ended: ended.set())
                assert cancelled.cancel()
                await ended.wait()
            assert not line.busy()
            world.client()
            await channel.look()
            await until_closed(line.channel)

    asyncio.run(main())


def test_closing_ends_calls_in_flight_on_every_line(world):
    async def main():
        async with serving(world) as (echo, connect):
            channel = connect(tokens=Fixed())
            echo.gate = asyncio.Event()
            begun = []
            for _ in range(2):
                echo.waiting.clear()
                begun.append(method(channel, "unary_unary")(b"a"))
                await echo.waiting.wait()
                world.client()
                await channel.look()
            await channel.close()
            for each in begun:
                assert await each.code() is grpc.StatusCode.CANCELLED
            for kind in KINDS:
                with pytest.raises(grpc.aio.UsageError, match="closed"):
                    await call(channel, kind)
            world.client()
            await channel.look()
            assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
            await channel.close()

    asyncio.run(main())


def test_closing_with_grace_lets_calls_finish(world):
    async def main():
        async with serving(world) as (echo, connect):
            channel = connect(tokens=Fixed())
            echo.gate = asyncio.Event()
            begun = asyncio.create_task(call(channel, "unary_unary"))
            await echo.waiting.wait()
            closing = asyncio.create_task(channel.close(grace=30))
            await asyncio.sleep(0)
            assert channel._closed
            echo.gate.set()
            assert await begun == b"a b"
            await closing

    asyncio.run(main())


def test_a_channel_that_is_forgotten_is_not_watched_for_ever(world, monkeypatch):
    monkeypatch.setattr("secure_client.aio.LOOK_EVERY", 0.01)

    async def main():
        async with serving(world) as (_, connect):
            channel = connect()
            found, watch = weakref.ref(channel), channel._watch
            del channel
            while not watch.done():
                gc.collect()
                await asyncio.sleep(0.01)
            assert found() is None

    asyncio.run(main())


def test_the_state_is_that_of_the_line_for_new_calls(world):
    async def main():
        async with serving(world) as (_, connect), connect() as channel:
            assert channel.get_state() is grpc.ChannelConnectivity.IDLE
            await channel.channel_ready()
            assert channel.get_state() is grpc.ChannelConnectivity.READY
            world.client()
            await channel.look()
            assert channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.IDLE
            await channel.wait_for_state_change(grpc.ChannelConnectivity.IDLE)
            await channel.channel_ready()

    asyncio.run(main())
