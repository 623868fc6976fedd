"""Introspect: after an answer that a token is active, a second one when it no longer is."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from services.people import Person, administrator, newcomer

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_server.auth.local_issuer import LocalIssuerAuthenticator
from secure_server.auth.plugin import LocalIssuer
from secure_server.services import introspection
from secure_server.store import Database
from secure_server.tokens.revocations import Revocations
from support.door import wait_until
from support.house import DEADLINE, House, bearer, running_house
from support.second import connected, second_server


class Asking:
    """An open ``Introspect`` stream; its answers go into a queue."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._requests: queue.Queue[pb.IntrospectRequest | None] = queue.Queue()
        self.answers: queue.Queue[pb.IntrospectResponse] = queue.Queue()
        self.call: Any = TokenServiceStub(channel).Introspect(
            iter(self._requests.get, None), metadata=bearer(token), timeout=60
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            for answer in self.call:
                self.answers.put(answer)
        except grpc.RpcError:
            pass

    def send(self, token: str, correlation_id: str = "") -> None:
        self._requests.put(pb.IntrospectRequest(token=token, correlation_id=correlation_id))

    def ask(self, token: str, correlation_id: str = "") -> pb.IntrospectResponse:
        self.send(token, correlation_id)
        return self.next()

    def next(self, timeout: float = DEADLINE) -> pb.IntrospectResponse:
        return self.answers.get(timeout=timeout)

    def finish(self) -> list[pb.IntrospectResponse]:
        """Send no more requests, and return the remaining answers."""
        self._requests.put(None)
        self._reader.join(DEADLINE)
        left = []
        while not self.answers.empty():
            left.append(self.answers.get())
        return left

    def close(self) -> None:
        self.call.cancel()
        self._requests.put(None)
        self._reader.join(DEADLINE)


def readers() -> int:
    return sum(thread.name == "introspect-reader" for thread in threading.enumerate())


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


@pytest.fixture(scope="module")
def alice(house: House, admin_token: str) -> Person:
    return newcomer(house, admin_token, called="alice")


@pytest.fixture
def asking(house: House, admin: Person) -> Iterator[Asking]:
    stream = Asking(house.channel(house.admin), admin.tokens.access_token)
    yield stream
    stream.close()


@pytest.mark.parametrize("by", ["token", "token_id", "session", "user", "client"])
def test_a_second_answer_comes_by_itself_within_a_second_of_each_revocation(
    admin: Person, alice: Person, asking: Asking, by: str
) -> None:
    tokens, other = alice.log_in(), admin.tokens.access_token
    assert asking.ask(other, "other").watched
    first = asking.ask(tokens.access_token, "it")
    assert first.active
    assert first.watched
    me = alice.me(tokens.access_token).token
    sessions = admin.do("ListSessions", pb.ListSessionsRequest(parent=alice.resource)).sessions
    requests: dict[str, tuple[str, Any]] = {
        "token": ("RevokeToken", pb.RevokeTokenRequest(token=tokens.access_token)),
        "token_id": ("RevokeToken", pb.RevokeTokenRequest(token_id=me.token_id)),
        "session": ("RevokeSession", pb.RevokeSessionRequest(name=sessions[-1].name)),
        "user": ("RevokeUser", pb.RevokeUserRequest(name=alice.resource)),
        "client": ("RevokeClient", pb.RevokeClientRequest(client_id=me.client_id)),
    }
    admin.do(*requests[by])
    assert asking.next(timeout=1.0) == pb.IntrospectResponse(correlation_id="it")
    assert not asking.ask(tokens.access_token, "again").active
    assert asking.ask(other, "other").active
    assert asking.finish() == []


def test_each_question_about_a_token_gets_its_second_answer(
    admin: Person, alice: Person, asking: Asking
) -> None:
    token = alice.log_in().access_token
    for name in ("a", "b", "a"):
        assert asking.ask(token, name).watched
    admin.do("RevokeToken", pb.RevokeTokenRequest(token=token))
    assert [asking.next(timeout=1.0).correlation_id for _ in range(3)] == ["a", "b", "a"]
    assert asking.finish() == []


def test_a_revocation_by_another_server_process_of_the_store_is_told_too(
    house: House, admin: Person, alice: Person, asking: Asking
) -> None:
    token = alice.log_in().access_token
    assert asking.ask(token, "it").active
    with second_server(house) as other, connected(house, other, house.admin) as channel:
        TokenServiceStub(channel).RevokeUser(
            pb.RevokeUserRequest(name=alice.resource),
            metadata=bearer(admin.tokens.access_token),
            timeout=DEADLINE,
        )
        assert asking.next(timeout=1.0) == pb.IntrospectResponse(correlation_id="it")


def test_a_second_answer_comes_when_a_token_ends_by_itself(tmp_path: Path) -> None:
    """It comes after the leeway for clocks, when a new question would get `active` false too."""
    ahead = [0.0]
    settings = '[[workloads]]\nspiffe_id = "spiffe://example.org/client/w"\n'
    with running_house(tmp_path, settings, clock=lambda: time.time() + ahead[0]) as house:
        admin = house.first_log_in()
        workload = Person(house, "w", house.client("w"))
        ahead[0] = 100.0
        old = workload.do("IssueToken", pb.IssueTokenRequest(), "").access_token
        ahead[0] = 300.0
        admin = house.log_in("admin", "correct horse battery staple")
        stream = Asking(house.channel(house.admin), admin.access_token)
        try:
            assert stream.ask(old, "old").active
            ahead[0] = 705.0
            assert stream.ask(old, "leeway").active
            ahead[0] = 715.0
            ended = {stream.next(timeout=2.0).correlation_id for _ in range(2)}
            assert ended == {"old", "leeway"}
            assert stream.ask(admin.access_token).active
        finally:
            stream.close()


def test_beyond_the_most_that_is_watched_an_answer_says_so(
    admin: Person, alice: Person, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introspection, "MOST_WATCHED", 3)
    tokens = [alice.log_in().access_token for _ in range(4)]
    told = [asking.ask(token, str(number)) for number, token in enumerate(tokens)]
    assert [(answer.active, answer.watched) for answer in told] == [(True, True)] * 3 + [
        (True, False)
    ]
    admin.do("RevokeToken", pb.RevokeTokenRequest(token=tokens[0]))
    assert asking.next(timeout=1.0).correlation_id == "0"
    assert asking.ask(tokens[3], "room").watched
    admin.do("RevokeUser", pb.RevokeUserRequest(name=alice.resource))
    assert sorted(asking.next(timeout=1.0).correlation_id for _ in range(3)) == ["1", "2", "room"]
    assert asking.finish() == []


def test_requests_are_not_read_far_ahead_of_the_answers(tmp_path: Path) -> None:
    """A caller that reads no answers cannot go on asking: HTTP/2 flow control stops it."""
    before = readers()
    read = 0
    last = threading.Event()

    def questions() -> Iterator[pb.IntrospectRequest]:
        nonlocal read
        for read in range(1, 1001):
            yield pb.IntrospectRequest(correlation_id=str(read), token="x")
        last.set()

    database = Database.open(f"sqlite:///{tmp_path}/store.db")
    own = LocalIssuer("https://us", "us", lambda _key_id: None)
    revocations = Revocations(database, issuer="https://us", clock=time.time)
    revocations.refresh()
    answers: Any = introspection.Introspection(
        LocalIssuerAuthenticator("jwt", own, time.time), revocations, clock=time.time
    ).answer(questions(), SimpleNamespace(time_remaining=lambda: None))
    for number in range(1, 101):
        assert next(answers).correlation_id == str(number)
        assert read <= number + 18  # those that wait, and one on each side
    wait_until(lambda: read >= 116)
    answers.close()
    wait_until(lambda: readers() == before)
    assert not last.is_set()
    database.close()


@pytest.mark.parametrize("how", ["hangs up", "asks no more", "is revoked", "breaks a rule"])
def test_no_thread_is_left_however_a_stream_ends(house: House, admin_token: str, how: str) -> None:
    before = readers()
    person = newcomer(house, admin_token, "admin")
    stream = Asking(house.channel(person.client), person.tokens.access_token)
    assert stream.ask(person.tokens.access_token).active
    assert readers() == before + 1
    if how == "hangs up":
        stream.call.cancel()
    elif how == "asks no more":
        assert stream.finish() == []
        assert stream.call.code() is grpc.StatusCode.OK
    elif how == "is revoked":
        person.do("Logout", pb.LogoutRequest())
        wait_until(lambda: not stream.call.is_active())
        assert stream.call.code() is grpc.StatusCode.UNAUTHENTICATED
    else:
        stream.send("x", "x" * 65)
        wait_until(lambda: not stream.call.is_active())
        assert stream.call.code() is grpc.StatusCode.INVALID_ARGUMENT
    wait_until(lambda: readers() == before)
    stream.close()
