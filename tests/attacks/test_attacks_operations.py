"""Operations: what reaches the log, and how a server ends.

The server is a process of its own, because the tests are about its survival and its end.
"""

from __future__ import annotations

import json
import queue
import re
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_server.sections import TokensSection
from secure_server.tokens.key_file import KeyFile
from secure_tls.peer import parse_peer
from support.door import wait_until
from support.forge import Forge
from support.house import call, reason_of, running_house
from support.raw import context_from_files, raw_client
from support.running import Running, bearer, running_server

OPEN_METHOD = "/secure_api.tokens.v1.TokenService/GetKeySet"
DEADLINE = 15.0

HOSTILE = 'eve\n{"event": "forged"}\r\x1b[31mred\x00\x07\x7f\x85\x9b31m\u2028\u2029\u202e'
"""A line break in each of its forms, terminal commands, NUL, and a change of direction."""


def context(running: Running) -> ssl.SSLContext:
    admin = running.admin
    return context_from_files(admin.certificate, admin.private_key, admin.ca)


# --- O3 ---


def provoke(running: Running, hostile: str) -> None:
    """Get three refusals: for a user name, for a method, for a claim of a token."""
    key_file = running.installation.root / "state" / "signing-key.pem"
    settings = TokensSection()
    forge = Forge(
        key_file.read_bytes(),
        KeyFile(key_file).open(time.time()).key_id,
        settings.issuer,
        settings.audience,
    )
    thumbprint = parse_peer(running.admin.certificate.read_bytes()).thumbprint
    expired = forge.token(thumbprint, sub=hostile, client_id=hostile, jti=hostile, iat=1, exp=2)
    with running.admin.channel(running.address) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            TokenServiceStub(channel).Login(
                tokens_pb.LoginRequest(user_name=hostile, password="wrong"), timeout=DEADLINE
            )
        assert refused.value.code() is not grpc.StatusCode.UNAVAILABLE
        assert call(channel, metadata=bearer(expired)).code is grpc.StatusCode.UNAUTHENTICATED
    for path in (f"/{hostile}/M", b"/\x9b31m\xff\xfe/M"):
        with raw_client(running.address, context(running)) as client:
            reply = client.call(path)  # type: ignore[arg-type]
            assert reply.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("form", ["json", "text"])
def test_O3_hostile_names_stay_inside_their_line_of_the_log(tmp_path: Path, form: str) -> None:
    environment = {"SECURE_SERVER_LOG__FORMAT": form}
    with running_server(tmp_path, environment=environment) as running:
        provoke(running, HOSTILE)
        running.server.stop()
        text = running.server.log_file.read_bytes().decode()
    assert all(character.isprintable() or character == "\n" for character in text)
    lines = text.splitlines()
    if form == "text":
        stamp = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z ")
        assert all(stamp.match(line) for line in lines), text
        escaped = repr(HOSTILE)[1:-1]
        assert sum(escaped in line for line in lines) == 2
    else:
        entries = [json.loads(line) for line in lines]
        # What is no user name is not even written down: it may be a password in the wrong field.
        assert [e["user"] for e in entries if e["event"] == "log-in refused"] == [None]
        assert [e["unverified"] for e in entries if "unverified" in e] == [
            {
                "iss": TokensSection().issuer,
                "sub": HOSTILE,
                "client_id": HOSTILE,
                "jti": HOSTILE,
            }
        ]
        assert f"/{HOSTILE}/M" in [e.get("method") for e in entries]
        assert "forged" not in [e["event"] for e in entries]


# --- O4 ---


class Events:
    """Reads a response stream on a thread of its own; the status is the last event."""

    def __init__(self, stream: Any) -> None:
        self._events: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: Any) -> None:
        try:
            for message in stream:
                self._events.put(message)
            self._events.put("ended without an error")
        except grpc.RpcError as error:
            self._events.put(error)

    def next(self) -> Any:
        return self._events.get(timeout=DEADLINE)


def test_O4_at_SIGTERM_calls_in_flight_finish_streams_are_told_and_the_process_ends_in_time(
    tmp_path: Path,
) -> None:
    """The grace is 5 seconds; a quiet stream ends after a third of it."""
    never, now = threading.Event(), threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait()
        yield b""

    def late() -> Iterator[bytes]:
        assert now.wait(DEADLINE)
        yield b""

    with running_server(tmp_path) as running, running.admin.channel(running.address) as channel:
        metadata = bearer(running.admin_token())
        watch_users = channel.unary_stream("/secure_api.users.v1.UserService/WatchUsers")
        watch_health = channel.unary_stream("/grpc.health.v1.Health/Watch")
        introspect = channel.stream_stream("/secure_api.tokens.v1.TokenService/Introspect")
        # On the wire a unary call whose one message has not come yet.
        who_am_i = channel.stream_unary("/secure_api.tokens.v1.TokenService/WhoAmI")

        users = Events(watch_users(b"", metadata=metadata, timeout=60))
        health = Events(watch_health(b"", metadata=metadata, timeout=60))
        quiet = Events(introspect(silent(), metadata=metadata, timeout=60))
        in_flight = who_am_i.future(late(), metadata=metadata, timeout=60)
        try:
            assert users.next()  # it watches
            assert health.next()
            # In order after the others on the same connection: so those have arrived.
            assert call(channel, metadata=metadata).served

            begin = time.monotonic()
            running.server.process.terminate()
            ends = [users.next(), health.next()]
            told_after = time.monotonic() - begin
            assert running.server.process.poll() is None
            with running.admin.channel(running.address) as another:
                refused = call(another, method=OPEN_METHOD, request=b"")
            now.set()
            answer = in_flight.result(timeout=DEADLINE)
            ends.append(quiet.next())
            status = running.server.process.wait(DEADLINE)
            took = time.monotonic() - begin
        finally:
            never.set()
            now.set()
        assert tokens_pb.WhoAmIResponse.FromString(answer).token.subject == "users/admin"
        # The health service says NOT_SERVING before its stream ends.
        if not isinstance(ends[1], grpc.RpcError):
            ends[1] = health.next()
        for end in ends:
            assert isinstance(end, grpc.RpcError), end
            assert end.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(end) == "SERVER_ROTATING"
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        assert told_after < 1.5
        assert status == 0
        assert 5 / 3 - 0.5 < took < 5 + 1
        assert "Traceback" not in running.server.log
        assert not running.server.ready_file.exists()


def test_O4_a_call_that_never_ends_does_not_hold_the_process_beyond_the_grace(
    tmp_path: Path,
) -> None:
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait()
        yield b""

    environment = {"SECURE_SERVER_SERVER__GRACE": "1"}
    with (
        running_server(tmp_path, environment=environment) as running,
        running.admin.channel(running.address) as channel,
    ):
        try:
            in_flight = channel.stream_unary(OPEN_METHOD).future(silent(), timeout=60)
            assert call(channel, method=OPEN_METHOD, request=b"").served
            begin = time.monotonic()
            running.server.process.terminate()
            assert running.server.process.wait(DEADLINE) == 0
            assert 0.5 < time.monotonic() - begin < 3
            assert in_flight.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        finally:
            never.set()


def test_O4_a_second_SIGTERM_ends_at_once(tmp_path: Path) -> None:
    environment = {"SECURE_SERVER_SERVER__GRACE": "60"}
    with (
        running_server(tmp_path, environment=environment) as running,
        raw_client(running.address, context(running)) as client,
    ):
        client.begin(OPEN_METHOD)
        assert client.call(OPEN_METHOD).code is grpc.StatusCode.OK
        running.server.process.terminate()
        end = time.monotonic() + DEADLINE
        while running.server.process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
            running.server.process.terminate()
        assert running.server.process.poll() is not None


def test_O1_verified_tokens_go_on_until_the_feed_is_too_old_and_then_every_token_is_refused(
    tmp_path: Path,
) -> None:
    """Calls without a token are served throughout, and all calls when the store is back."""
    settings = "max_feed_staleness = 1.0\n"
    with running_house(tmp_path, store=settings) as house:
        token = bearer(house.first_log_in().access_token)
        channel = house.channel(house.admin)
        assert call(channel, metadata=token).served
        revocations = house.server._guard.core._revocations
        revocations.close()  # its feed stands still, as when the store cannot be read
        assert call(channel, metadata=token).served
        wait_until(
            lambda: call(channel, metadata=token).code is grpc.StatusCode.UNAVAILABLE, seconds=10
        )
        open_method = "/secure_api.tokens.v1.TokenService/GetKeySet"
        assert call(channel, method=open_method, request=b"").served
        revocations.start()
        assert call(channel, metadata=token).served
