"""Rotations of the signing key under calls: K6 and K8 over a real server, with no call refused."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import grpc
import jwt
import pytest

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from secure_server.auth.key_sets import parse_key_set
from secure_server.tokens.key_file import KeyFile
from secure_server.tokens.key_ring import VERIFIES_FOR
from secure_server.tokens.key_store import KeyStore
from support.house import PASSWORD, House, bearer, call, reason_of, running_house
from support.pages import get_page
from support.running import DEADLINE, ClientFiles, Installation
from support.second import connected, second_server

PUBLISHING = 600
LIFETIME = 3600
"""Seconds; the longest that a token may live."""


class Clock:
    """The server's, which a test moves on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def house(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("SECURE_SERVER_TOKENS__ACCESS_TOKEN_LIFETIME", str(LIFETIME))
    settings = '[http]\nlisten = "127.0.0.1:0"\n'
    with running_house(tmp_path, settings, clock=clock) as house:
        yield house


def rotate(house: House, clock: Clock, publishing: int = PUBLISHING) -> str:
    """Do as ``secure-server keys rotate`` does, in another process as it were."""
    file = KeyFile(house.config.tokens.signing_key)
    ring = file.change(lambda ring: ring.rotated(clock(), publishing), clock())
    return ring.entries[0].key.key_id


def kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def key_set(channel: grpc.Channel) -> list[str]:
    answer = TokenServiceStub(channel).GetKeySet(pb.GetKeySetRequest(), timeout=DEADLINE)
    return [key.kid for key in answer.keys]


def published(house: House, channel: grpc.Channel) -> list[str]:
    """The key set by gRPC, which must be that by HTTP."""
    text = get_page(house.server.http_address, "/.well-known/jwks.json").content
    ids = [key["kid"] for key in json.loads(text)["keys"]]
    assert key_set(channel) == ids
    assert set(parse_key_set(text, "jwks.json")[0]) == set(ids)
    return ids


def test_K6_a_key_is_seen_before_it_signs_and_tokens_of_the_old_one_work_until_they_end(
    house: House, clock: Clock
) -> None:
    token = house.first_log_in().access_token
    old = kid(token)
    with house.channel(house.admin) as channel:
        assert published(house, channel) == [old]
        new = rotate(house, clock)
        eventually(lambda: key_set(channel) == [new, old])
        assert published(house, channel) == [new, old]

        clock.ahead = PUBLISHING - 5
        last = house.log_in("admin", PASSWORD).access_token
        assert kid(last) == old
        clock.ahead = PUBLISHING + 1
        first = house.log_in("admin", PASSWORD).access_token
        assert kid(first) == new
        for each in (token, last, first):
            assert call(channel, metadata=bearer(each)).served

        clock.ahead = PUBLISHING - 5 + LIFETIME - 2
        assert published(house, channel) == [new, old]
        assert call(channel, metadata=bearer(last)).served
        clock.ahead = PUBLISHING + VERIFIES_FOR + 1
        assert published(house, channel) == [new]
        refused = call(channel, metadata=bearer(last))
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED
        eventually(lambda: old not in house.config.tokens.signing_key.read_text())


def test_K8_a_retired_key_verifies_nothing_neither_a_cached_token_nor_an_open_stream(
    house: House, clock: Clock
) -> None:
    """The tokens are a thief's, who has the old private key."""
    forge = house.forge

    def forged() -> str:
        now = int(clock())
        return forge.token(house.admin.thumbprint, iat=now, exp=now + LIFETIME)

    with house.channel(house.admin) as channel:
        rotate(house, clock, publishing=0)
        eventually(lambda: len(key_set(channel)) == 2)
        clock.ahead = VERIFIES_FOR - 30
        remembered = forged()
        for _ in range(3):
            assert call(channel, metadata=bearer(remembered)).served
        watch = UserServiceStub(channel).WatchUsers(
            users_pb.WatchUsersRequest(), metadata=bearer(remembered), timeout=DEADLINE
        )
        assert next(watch)
        clock.ahead = VERIFIES_FOR + 1
        assert not call(channel, metadata=bearer(forged())).served
        begin = time.monotonic()
        eventually(lambda: not call(channel, metadata=bearer(remembered)).served)
        assert time.monotonic() - begin < 3
        refused = call(channel, metadata=bearer(remembered))
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED
        assert refused.reason == "CREDENTIALS_REFUSED"
        with pytest.raises(grpc.RpcError) as ended:
            for _ in watch:
                pass
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert reason_of(ended.value) == "SESSION_ENDED"
        assert time.monotonic() - begin < 4


def test_a_server_beside_this_one_accepts_the_new_key_before_it_has_looked_at_the_file(
    house: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.first_log_in()
    monkeypatch.setattr(KeyStore, "start", lambda *_, **__: None)
    with (
        second_server(house, clock=clock, http={"listen": None}) as beside,
        connected(house, beside, house.admin) as channel,
    ):
        new = rotate(house, clock, publishing=0)
        token = house.log_in("admin", PASSWORD).access_token
        while kid(token) != new:
            token = house.log_in("admin", PASSWORD).access_token
        assert call(channel, metadata=bearer(token)).served


class Callers:
    """Call as long as the test runs, and keep what failed."""

    def __init__(self, client: ClientFiles, address: str) -> None:
        self.failures: list[str] = []
        self.calls = 0
        self.kids: list[str] = []
        self._client = client
        self._address = address
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(renewing,)) for renewing in (False, True)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self, renewing: bool) -> None:
        """Call with one token for ever, or with a new one each time."""
        token = ""
        with self._client.channel(self._address) as channel:
            stub = TokenServiceStub(channel)
            while not self._over.wait(0.02):
                try:
                    if renewing or not token:
                        token = stub.IssueToken(
                            pb.IssueTokenRequest(), timeout=DEADLINE
                        ).access_token
                    stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token), timeout=DEADLINE)
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()} {error.details()}")
                if kid(token) not in self.kids:
                    self.kids.append(kid(token))
                self.calls += 1


def command(folder: Path, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name(name)), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_running_server_reloads_rotations_by_the_command_and_no_call_fails(
    tmp_path: Path,
) -> None:
    """One with a time of publishing, short here, and one at once. In the end the command that is
    shown for servers of your own prints them all.
    """
    installation = Installation(
        tmp_path,
        settings=(
            "[tokens]\nsigning_key_publishing = 1\n"
            '[[workloads]]\nspiffe_id = "spiffe://example.org/client/admin"\nroles = ["admin"]\n'
        ),
    )
    client = installation.client()
    server = installation.start()
    try:
        with Callers(client, server.address) as callers:
            for number, arguments in enumerate([(), ("--now",)], start=1):
                eventually(lambda number=number: len(callers.kids) == number)
                command(tmp_path, "secure-server", "keys", "rotate", *arguments)
            eventually(lambda: len(callers.kids) == 3)
            text = command(
                tmp_path,
                "secure-client",
                *("--target", server.address, "--ca", str(client.ca)),
                *("--certificate", str(client.certificate)),
                *("--private-key", str(client.private_key), "keys"),
            )
            calls = callers.calls
            eventually(lambda: callers.calls > calls + 10)
    finally:
        server.stop()
    assert callers.failures == []
    assert callers.calls > 100
    assert [jwk["kid"] for jwk in json.loads(text)["keys"]] == callers.kids[::-1]
    assert parse_key_set(text.encode(), "secure-client keys")[1] == []
    assert "signing keys changed" in server.log
