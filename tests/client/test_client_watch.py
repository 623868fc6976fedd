"""A watch on users outlives its tokens and its server: every change comes once, in order."""

import asyncio
import re
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import pytest
from client_seen import until
from client_watchers import Asyncio, Command, Threaded, Writer, log_in, watching
from sqlalchemy import delete, func, select

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as pb
from secure_client import (
    ConfigurationError,
    ConnectionSettings,
    SessionEndedError,
    aio,
    watch_users,
)
from secure_client._clock import Clock
from secure_client._resuming import Resuming
from secure_client.profile import Profile
from secure_server.store.database import Database
from secure_server.store.schema import user_changes
from support.house import PASSWORD, running_house
from support.running import Installation

# The time of the server passes so much faster: a token of 30 seconds, and the leeway of 10, are
# over in one and a third.
SPEED = 30
ENDS = 3

OVER = "The session of admin at {} has ended: run secure-client login admin."


class CallFailed(grpc.RpcError):
    def __init__(self, code):
        super().__init__()
        self.code = lambda: code


def fast(clock):
    start = clock()
    return lambda: start + (clock() - start) * SPEED


@pytest.fixture
def hasty(tmp_path, monkeypatch):
    """A server whose tokens expire quickly."""
    monkeypatch.setenv("SECURE_SERVER_TOKENS__ACCESS_TOKEN_LIFETIME", "30")
    with running_house(tmp_path, clock=fast(time.time)) as house:
        house.first_log_in()
        yield house


def session(house, name):
    """A profile with a session of the administrator, over a certificate of its own."""
    issued, root = house.client(name).issued, house.root
    house.write(f"{name}.pem", issued.certificate_pem)
    house.write(f"{name}.key", issued.private_key_pem)
    files = (root / "ca.pem", root / f"{name}.pem", root / f"{name}.key")
    return log_in(ConnectionSettings(house.address, *files), PASSWORD)


def end_session(writer, name):
    """Have the administrator revoke the session that is bound to this client."""
    source = writer.source
    with source.connection.open(source) as channel:
        stub = TokenServiceStub(channel)
        listed = stub.ListSessions(tokens_pb.ListSessionsRequest(parent="users/admin")).sessions
        (found,) = [each for each in listed if each.client_id.endswith(f"/{name}")]
        stub.RevokeSession(tokens_pb.RevokeSessionRequest(name=found.name))


def ended(log, name):
    """How many streams of this client were ended with their tokens."""
    return sum(
        line.get("reason") == "expired"
        and line["method"].endswith("/WatchUsers")
        and line["peer"].endswith(f"/{name}")
        for line in log
    )


def test_every_change_is_told_once_while_tokens_end(hasty, tmp_path, log):
    """Whether the client renews them ahead of their end or learns of that from the server."""
    writer = Writer(session(hasty, "writer"))
    ahead = Clock(fast(time.time), fast(time.monotonic))
    watchers = {
        "command": Command(session(hasty, "command"), tmp_path),
        "threaded": Threaded(session(hasty, "threaded")),
        "threaded-ahead": Threaded(session(hasty, "threaded-ahead"), ahead),
        "asyncio": Asyncio(session(hasty, "asyncio")),
        "asyncio-ahead": Asyncio(session(hasty, "asyncio-ahead"), ahead),
    }
    with watching(*watchers.values()):
        writer.write(lambda: all(ended(log, name) >= ENDS for name in watchers))
        for name, watcher in watchers.items():
            until(lambda watcher=watcher: len(watcher.names) >= len(writer.names))
            assert watcher.names == writer.names, name
    assert watchers["command"].said.splitlines() == [
        f"Watching the users of {hasty.address}; Ctrl-C ends it."
    ]
    assert [watcher.stands for watcher in watchers.values() if hasattr(watcher, "stands")] == [
        1
    ] * 4


def test_the_command_goes_on_where_it_was_interrupted(hasty, tmp_path):
    writer = Writer(session(hasty, "writer"))
    first = Command(session(hasty, "command"), tmp_path)
    with watching(first):
        writer.write_some(3)
        until(lambda: len(first.names) == 3)
        assert first.interrupt() == 130
    begun, how = first.said.strip().split("\n\n")
    assert begun == f"Watching the users of {hasty.address}; Ctrl-C ends it."
    shown = re.fullmatch(r"To go on from here: secure-client users watch --resume (\S+)", how)
    writer.write_some(3)
    second = Command("command", tmp_path, "--resume", shown[1])
    with watching(second):
        writer.write_some(3)
        until(lambda: len(second.names) == 6)
    assert first.names + second.names == writer.names


@dataclass
class Site:
    """A real server with a port of its own, and the administrator's password."""

    installation: Installation
    address: str

    def session(self, name):
        files = self.installation.client(name)
        connection = ConnectionSettings(
            self.address, files.ca, files.certificate, files.private_key
        )
        return log_in(connection, PASSWORD)


@contextmanager
def site(root):
    installation = Installation(root)
    secret = installation.bootstrap()
    running = [installation.start()]
    address = running[0].address
    try:
        text = installation.config.read_text()
        installation.config.write_text(text.replace("127.0.0.1:0", address))
        files = installation.client("admin")
        connection = ConnectionSettings(address, files.ca, files.certificate, files.private_key)
        log_in(connection, secret, PASSWORD)
        yield Site(installation, address), running
    finally:
        for server in running:
            server.kill()


def test_every_change_is_told_once_while_the_server_restarts_and_the_end_of_a_session(tmp_path):
    """Stopped and killed; a revoked watcher learns it in one sentence."""
    with site(tmp_path) as (place, running):
        writer = Writer(place.session("writer"))
        watchers = {
            "command": Command(place.session("command"), tmp_path),
            "threaded": Threaded(place.session("threaded")),
            "asyncio": Asyncio(place.session("asyncio")),
        }
        restarted = []

        def restart():
            for end in ("stop", "kill"):
                count = len(writer.names)
                until(lambda count=count: len(writer.names) >= count + 5)
                getattr(running[-1], end)()
                running.append(place.installation.start())
            count = len(writer.names)
            until(lambda: len(writer.names) >= count + 5)
            restarted.append(True)

        with watching(*watchers.values()):
            restarting = threading.Thread(target=restart)
            restarting.start()
            writer.write(lambda: restarted or not restarting.is_alive())
            restarting.join()
            assert restarted
            for name, watcher in watchers.items():
                until(lambda watcher=watcher: len(watcher.names) >= len(writer.names))
                end_session(writer, name)
                outcome = watcher.ends()
                assert watcher.names == writer.names, name
                if name != "command":
                    assert isinstance(outcome, SessionEndedError), outcome
                    assert str(outcome) == OVER.format(place.address)
                    assert watcher.stands == 1
        assert outcome is not None
    assert watchers["command"].process.returncode == 1
    *told, how, why = watchers["command"].said.splitlines()
    assert how.startswith("To go on from here: secure-client users watch --resume ")
    assert why == "secure-client: " + OVER.format(place.address)
    assert told[0] == f"Watching the users of {place.address}; Ctrl-C ends it."
    # If the server was back soon enough, no interruption was reported.
    for each in told[1:]:
        assert each.startswith("secure-client: the watch on users "), each


@pytest.mark.parametrize("kind", [Threaded, Asyncio])
def test_a_token_that_is_revoked_without_its_session_is_replaced(house, admin_token, log, kind):
    name = kind.__name__.lower()
    writer, watcher = Writer(session(house, "writer"), f"{name}-"), kind(session(house, name))
    with watching(watcher):
        writer.write_some(1)
        until(lambda: watcher.names == writer.names)
        (token_id,) = {Profile.named(name).session.load().token.claims()["jti"]}
        with writer.source.connection.open(writer.source) as channel:
            TokenServiceStub(channel).RevokeToken(tokens_pb.RevokeTokenRequest(token_id=token_id))
        until(lambda: any(line.get("reason") == "revoked" for line in log))
        writer.write_some(1)
        until(lambda: len(watcher.names) == 2)
    assert watcher.names == writer.names


def test_a_place_that_is_not_kept_any_more_is_told_with_what_to_do(tmp_path):
    with running_house(tmp_path) as house:
        house.first_log_in()
        writer = Writer(session(house, "writer"))
        watcher = Threaded(session(house, "watcher"))
        with watching(watcher):
            old = watcher.resume_token
            writer.write_some(2)
        database = Database.open(house.config.store.url)
        with database.write() as connection:
            last = connection.scalar(select(func.max(user_changes.c.number)))
            connection.execute(delete(user_changes).where(user_changes.c.number < last))
        database.close()
        with writer.source.connection.open(writer.source) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                list(watch_users(channel, resume_token=old))
            assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
        command = Command("watcher", tmp_path, "--resume", old)
        with watching(command):
            assert command.ends() == 1
        assert command.said == (
            f"secure-client: {house.address} no longer keeps all changes since then: see how the "
            "users are now (secure-client users list), and watch without --resume.\n"
        )


@pytest.mark.parametrize("kind", [Threaded, Asyncio])
def test_closing_the_channel_ends_a_watch_that_waits_for_its_server(world, running, kind, caplog):
    watcher = kind(connection=world.connection(running.port))
    until(lambda: "the watch on users is interrupted (UNAVAILABLE)" in caplog.text)
    watcher.close()
    assert (watcher.names, watcher.error) == (["users/new"], None)
    assert not running.users.resumed.is_set()


def test_what_fails_from_the_start_is_told_at_once(world):
    with socket.socket() as taken:
        # Bound and not listening: the port is taken, and no server answers.
        taken.bind(("localhost", 0))
        with world.connection(taken.getsockname()[1]).open() as channel:
            with pytest.raises(grpc.RpcError) as failed:
                next(watch_users(channel))
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_channel_that_cannot_renew_tokens_is_refused():
    with (
        grpc.insecure_channel("localhost:1") as channel,
        pytest.raises(ConfigurationError, match=r"that secure_client\.connect returns"),
    ):
        watch_users(channel)

    async def main():
        async with grpc.aio.insecure_channel("localhost:1") as channel:
            with pytest.raises(ConfigurationError, match=r"secure_client\.aio\.connect returns"):
                aio.watch_users(channel)

    asyncio.run(main())


def test_the_pauses_grow_to_half_a_minute_and_a_stream_that_stood_ends_them():
    away = CallFailed(grpc.StatusCode.UNAVAILABLE)
    resuming = Resuming("")
    assert resuming.pause(away) is None  # from the start
    resuming.hear(pb.WatchUsersResponse(change="CHANGE_WATCHING", resume_token="t0"))
    limits = [1, 2, 4, 8, 16, 30, 30]
    for limit in limits:
        assert limit / 2 <= resuming.pause(away) <= limit
    resuming.hear(pb.WatchUsersResponse(change="CHANGE_WATCHING", resume_token="t0"))
    assert resuming.pause(away) <= 1
    assert resuming.request() == pb.WatchUsersRequest(resume_token="t0")


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "OUT_OF_RANGE", "INVALID_ARGUMENT"])
def test_what_the_server_has_decided_ends_the_watch(code):
    resuming = Resuming("")
    resuming.hear(pb.WatchUsersResponse(change="CHANGE_WATCHING", resume_token="t0"))
    assert resuming.pause(CallFailed(grpc.StatusCode[code])) is None


def test_a_fresh_token_that_is_refused_as_well_ends_the_watch():
    refused = CallFailed(grpc.StatusCode.UNAUTHENTICATED)
    resuming = Resuming("")
    assert resuming.pause(refused) == 0
    resuming.hear(pb.WatchUsersResponse(change="CHANGE_WATCHING", resume_token="t0"))
    assert resuming.pause(refused) is not None
    assert resuming.pause(refused) is not None
    assert resuming.pause(refused) is None
