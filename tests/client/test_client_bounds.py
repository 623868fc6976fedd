"""The time of a call with its retry, the pace of renewals, and what a channel leaves behind."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from client_echo import call, serving
from client_fakes import Renewing, Requests, open_channel, subject
from client_seen import connections, often, until
from client_service import TokenService, start
from test_client_tokens import Fetch, clock
from test_client_watch import CallFailed

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users
from secure_client import connect
from secure_client._resuming import Resuming
from secure_client.tokens.renewing import RenewingToken

__all__ = ["clock", "often"]


class SlowToRefuse(TokenService):
    """Refuses the first token after a while; ``remaining`` is each call's time left, in seconds."""

    def __init__(self):
        super().__init__(refused={"Bearer token-0"})
        self.remaining = []

    def WhoAmI(self, request, context):
        self.remaining.append(context.time_remaining())
        if len(self.remaining) == 1:
            threading.Event().wait(0.3)
        return super().WhoAmI(request, context)


class Stuck(Renewing):
    """A source that gives its first token at once, and no other before ``go``."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()
        self.stuck = threading.Event()

    def token(self, *, refused=None):
        if refused is not None:
            self.stuck.set()
            assert self.go.wait(30)
        return super().token(refused=refused)


class Failing(Renewing):
    def token(self, *, refused=None):
        if refused is not None:
            raise RuntimeError
        return super().token()


# The time of a call


def test_both_attempts_share_one_deadline(world):
    server, running = start(world, SlowToRefuse())
    with open_channel(world, running, tokens=Renewing()) as channel:
        TokenServiceStub(channel).WhoAmI(pb.WhoAmIRequest(), timeout=8)
    server.stop(None).wait()
    first, second = running.service.remaining
    assert second < first - 0.2


def test_a_call_waits_for_no_renewal_of_the_channel_beyond_its_deadline(world, running):
    source = Stuck()
    running.service.refused = {"Bearer token-0"}
    with open_channel(world, running, tokens=source) as channel, ThreadPoolExecutor(1) as pool:
        world.client()
        answer = pool.submit(TokenServiceStub(channel).WhoAmI, pb.WhoAmIRequest(), timeout=1)
        try:
            error = answer.exception(timeout=10)
        finally:
            source.go.set()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


# Tokens and pauses


@pytest.mark.parametrize(("lifetime", "renewed_from"), [(900, 840), (300, 240), (30, 24), (5, 4)])
def test_a_token_is_fetched_once_until_a_minute_or_a_fifth_of_its_life_is_left(
    clock, lifetime, renewed_from
):
    fetch = Fetch(lifetime)
    renewing = RenewingToken(fetch, clock.clock)
    for _ in range(10):
        assert renewing.token().value == "token-1"
        clock.pass_time((renewed_from - 0.1) / 10)
    assert renewing.token().value == "token-1"
    assert fetch.count == 1
    assert renewing._flight is None
    clock.pass_time(0.2)
    renewing.token()
    until(lambda: fetch.count == 2 and renewing.token().value == "token-2")


def test_pauses_of_many_watchers_are_spread_over_the_second_half_of_the_pause():
    """A server that restarts must not get all of them back at the same moment."""
    pauses = []
    for _ in range(200):
        resuming = Resuming("")
        resuming.hear(users.WatchUsersResponse(change="CHANGE_WATCHING", resume_token="t0"))
        pauses.append(resuming.pause(CallFailed(grpc.StatusCode.UNAVAILABLE)))
    assert 0.5 <= min(pauses) < 0.6
    assert 0.9 < max(pauses) <= 1.0
    assert len(set(pauses)) > 100


# What is left


def watching():
    return sum(each.name == "secure_client files" for each in threading.enumerate())


def test_closed_channels_are_not_watched_even_while_they_are_kept(world, often):
    channels = [connect("localhost:1", ca=world.ca) for _ in range(3)]
    until(lambda: watching() == 1)
    for channel in channels:
        channel.close()
    until(lambda: watching() == 0)
    assert len(channels) == 3


def test_a_renewal_that_comes_after_the_close_replaces_nothing_and_leaves_no_connection(
    world, running
):
    source = Stuck()
    channel = open_channel(world, running, host="127.0.0.1", tokens=source)
    subject(channel)
    before = channel._rotation.current
    world.client()
    renewing = channel._begin()
    assert source.stuck.wait(30)
    until(lambda: connections(running.port) == 2)
    channel.close()
    source.go.set()
    renewing.join(30)
    assert not renewing.is_alive()
    assert channel._rotation.all() == [before]
    until(lambda: connections(running.port) == 0)
    assert channel._begin() is None


def test_a_renewal_that_fails_closes_its_channel(world, running, monkeypatch):
    closed = []
    real = grpc._channel.Channel.close
    monkeypatch.setattr(
        grpc._channel.Channel, "close", lambda self: (closed.append(self), real(self))
    )
    with open_channel(world, running, host="127.0.0.1", tokens=Failing()) as channel:
        subject(channel)
        before = channel._rotation.current
        world.client()
        channel._begin().join(30)
        assert channel._rotation.all() == [before]
        assert len(closed) == 1
        assert closed[0] is not before.channel
        until(lambda: connections(running.port) == 1)
        subject(channel)


def test_a_renewal_that_fails_closes_its_channel_on_asyncio(world, monkeypatch):
    closed = []
    real = grpc.aio._channel.Channel.close

    async def close(self, grace=None):
        closed.append(self)
        await real(self, grace)

    monkeypatch.setattr(grpc.aio._channel.Channel, "close", close)

    async def main():
        async with serving(world) as (_, open_one), open_one(tokens=Failing()) as channel:
            await call(channel, "unary_unary")
            before = channel._rotation.current
            world.client()
            await channel._begin()
            assert channel._rotation.all() == [before]
            assert len(closed) == 1
            assert closed[0] is not before.channel

    asyncio.run(main())


def test_closing_with_streams_in_flight_leaves_no_call_counted_and_no_connection(world, running):
    """On the channel that takes new calls, and on the one before it."""
    channel = open_channel(world, running, host="127.0.0.1", tokens=Renewing())
    subject(channel)
    counted, streams, requests = [], [], [Requests(), Requests()]
    for each in requests:
        counted.append(channel._rotation.current)
        streams.append(TokenServiceStub(channel).Introspect(each))
        world.client()
        channel._begin().join(30)
    assert [each.busy() for each in counted] == [True, True]
    channel.close()
    until(lambda: not any(each.busy() for each in counted))
    until(lambda: connections(running.port) == 0)
    for each in requests:
        each.end()
