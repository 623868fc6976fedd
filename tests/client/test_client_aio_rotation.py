"""The channel for asyncio while its certificate is replaced, and when it is closed."""

import asyncio
import gc
import socket
import threading
import weakref

import grpc
import pytest
from client_echo import KINDS, call, failure, method, serving
from client_fakes import Fixed, Renewing, access_token
from client_seen import connections, let_pass, often, thumbprint, until

from secure_base.reloading import signature
from secure_client import AccessToken, aio
from secure_client._files import FOLLOWER, Files
from secure_tls import Authority

__all__ = ["often"]


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
            old = channel._rotation.current

            world.client()
            await channel.look_and_wait()
            assert old.busy()
            later = asyncio.create_task(call(channel, kind))
            echo.gate.set()
            assert await asyncio.gather(in_flight, later) == [b"a b"] * 2
            # The old channel is closed when its last call has ended, and not before.
            await until_closed(old.channel)
        before, after = echo.certificates
        assert before != after

    asyncio.run(main())


def test_C7_a_new_certificate_asks_for_another_token(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Renewing()) as channel:
            await call(channel, "unary_unary")
            world.client()
            await channel.look_and_wait()
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
            await channel.look_and_wait()
            await call(channel, "unary_unary")
            certificate.write_bytes(old)
            await channel.look_and_wait()
            await call(channel, "unary_unary")
            world.client()
            await channel.look_and_wait()
            await call(channel, "unary_unary")
        assert len(set(echo.certificates[:3])) == 1
        assert echo.certificates[3] != echo.certificates[0]

    asyncio.run(main())


def test_C7_the_files_are_looked_at_also_while_there_are_no_calls(world, often):
    async def main():
        async with serving(world) as (_, connect), connect() as channel:
            old = channel._rotation.current
            world.client()
            await until_closed(old.channel)
            assert channel._rotation.current is not old

    asyncio.run(main())


def test_C8_a_disk_that_hangs_does_not_block_the_loop(world, monkeypatch):
    hanging, release = threading.Event(), threading.Event()
    read = Files.read

    def hang(files):
        hanging.set()
        if not release.wait(30):
            raise RuntimeError("not released")
        return read(files)

    monkeypatch.setattr(Files, "read", hang)

    async def main():
        async with serving(world) as (echo, connect), connect() as channel:
            world.client()
            looking = asyncio.create_task(channel.look_and_wait())
            assert await asyncio.to_thread(hanging.wait, 30)
            for _ in range(10):
                await call(channel, "unary_unary")
            assert not looking.done()
            # The second caller waits for the first one's attempt, and both see its result.
            second = asyncio.create_task(channel.look_and_wait())
            release.set()
            await asyncio.gather(looking, second)
            await call(channel, "unary_unary")
        assert len(set(echo.certificates[:10])) == 1
        assert echo.certificates[10] != echo.certificates[0]

    asyncio.run(main())


def test_C8_a_token_that_is_long_in_coming_does_not_block_the_loop(world):
    asked, release = threading.Event(), threading.Event()

    class Slow(Renewing):
        def token(self, *, refused=None):
            if refused is not None:
                asked.set()
                assert release.wait(30)
            return super().token(refused=refused)

    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Slow()) as channel:
            await call(channel, "unary_unary")
            world.client()
            looking = asyncio.create_task(channel.look_and_wait())
            assert await asyncio.to_thread(asked.wait, 30)
            for _ in range(10):
                await call(channel, "unary_unary")
            assert not looking.done()
            release.set()
            await looking
            await call(channel, "unary_unary")
        # Calls meanwhile have the old certificate and its token.
        assert len(set(echo.certificates[:11])) == 1
        assert echo.tokens == [["Bearer token-0"]] * 11 + [["Bearer token-1"]]
        assert echo.certificates[11] != echo.certificates[0]

    asyncio.run(main())


def test_a_look_that_fails_is_made_again_and_one_line_says_why(world, monkeypatch, caplog):
    read, failures = Files.read, [RuntimeError("hunter2")] * 3

    def fail(files):
        files._tried = signature(files._endpoint.paths)
        if failures:
            raise failures.pop()
        return read(files)

    monkeypatch.setattr(Files, "read", fail)

    async def main():
        async with serving(world) as (_, connect), connect() as channel:
            old = channel._rotation.current
            world.client()
            for _ in range(3):
                await channel.look_and_wait()
                assert channel._rotation.current is old
                # The pauses between attempts grow; this test lets the time pass.
                let_pass(channel._files, 60.0)
            await channel.look_and_wait()
            assert channel._rotation.current is not old
        assert caplog.text.count("RuntimeError") == 1
        assert "hunter2" not in caplog.text

    asyncio.run(main())


def test_C7_a_certificate_that_the_server_does_not_take_is_not_used(world, caplog):
    async def main():
        async with serving(world) as (echo, connect), connect() as channel:
            await call(channel, "unary_unary")
            old = channel._rotation.current
            world.client("alice", Authority.create("example.org").issue_client("alice"))
            await channel.look_and_wait()
            let_pass(channel._files, 1.0)
            await channel.look_and_wait()
            assert channel._rotation.current is old
            await call(channel, "unary_unary")
            world.client()
            await channel.look_and_wait()
            await call(channel, "unary_unary")
        assert caplog.text.count("no connection comes about") == 1
        assert len(set(echo.certificates)) == 2

    asyncio.run(main())


def test_C7_a_token_goes_only_over_the_certificate_that_it_is_bound_to(world, often):
    class AtOnce:
        """Its tokens are bound to the file's certificate, which is newer than the channel's."""

        def token(self, *, refused=None):
            bound = thumbprint((world.folder / "alice.pem").read_bytes())
            return AccessToken(access_token(bound, cnf={"x5t#S256": bound}))

    async def main():
        async with serving(world) as (echo, connect), connect(tokens=AtOnce()) as channel:
            await call(channel, "unary_unary")
            for _ in range(5):
                counted = channel._rotation.current
                issued = world.authority.issue_client("alice")
                # The certificate last: with only the key replaced, the pair does not match.
                (world.folder / "alice.key").write_bytes(issued.private_key_pem)
                (world.folder / "alice.pem").write_bytes(issued.certificate_pem)
                while channel._rotation.current is counted:
                    for kind in KINDS:
                        await call(channel, kind)
            await call(channel, "unary_unary")
        pairs = [
            (AccessToken(sent.removeprefix("Bearer ")).claims()["cnf"]["x5t#S256"], certificate)
            for [sent], certificate in zip(echo.tokens, echo.certificates, strict=True)
        ]
        assert all(bound == thumbprint(certificate) for bound, certificate in pairs)
        assert len(set(pairs)) >= 5

    asyncio.run(main())


def test_no_call_is_counted_for_ever(world):
    async def main():
        async with serving(world) as (echo, connect), connect(tokens=Fixed()) as channel:
            counted = channel._rotation.current
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
            assert not counted.busy()
            world.client()
            await channel.look_and_wait()
            await until_closed(counted.channel)

    asyncio.run(main())


def test_closing_ends_calls_in_flight_on_every_channel(world):
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
                await channel.look_and_wait()
            await channel.close()
            for each in begun:
                assert await each.code() is grpc.StatusCode.CANCELLED
            for kind in KINDS:
                with pytest.raises(grpc.aio.UsageError, match="closed"):
                    await call(channel, kind)
            world.client()
            await channel.look_and_wait()
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
            assert channel.is_closed
            echo.gate.set()
            assert await begun == b"a b"
            await closing

    asyncio.run(main())


def test_closing_while_a_new_channel_is_being_connected_ends_that(world):
    async def main():
        with socket.create_server(("localhost", 0)) as silent:
            port = silent.getsockname()[1]
            certificate, key = world.client()
            channel = aio.connect(
                f"localhost:{port}", ca=world.ca, certificate=certificate, private_key=key
            )
            world.client()
            looking = asyncio.create_task(channel.look_and_wait())
            await asyncio.to_thread(until, lambda: connections(port))
            async with asyncio.timeout(5):
                await channel.close()
                with pytest.raises(asyncio.CancelledError):
                    await looking
            await asyncio.to_thread(until, lambda: not connections(port))

    asyncio.run(main())


def test_a_channel_that_is_forgotten_is_not_watched_for_ever(world):
    async def main():
        async with serving(world) as (_, connect):
            channel = connect()
            found = weakref.ref(channel)
            assert channel in FOLLOWER._followed
            del channel
            while found() is not None:
                gc.collect()
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_channel_whose_loop_has_ended_is_not_watched_for_ever(world, often):
    async def main():
        async with serving(world) as (_, connect):
            return connect()

    channel = asyncio.run(main())
    assert channel in FOLLOWER._followed
    world.client()
    channel.look()
    assert channel not in FOLLOWER._followed


def test_the_state_is_that_of_the_channel_for_new_calls(world):
    async def main():
        async with serving(world) as (_, connect), connect() as channel:
            assert channel.get_state() is grpc.ChannelConnectivity.IDLE
            await channel.channel_ready()
            assert channel.get_state() is grpc.ChannelConnectivity.READY
            world.client()
            await channel.look_and_wait()
            assert channel.get_state() is grpc.ChannelConnectivity.READY
            await channel.channel_ready()

    asyncio.run(main())
