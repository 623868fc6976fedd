"""Revoking by token, session, user and client: who may, what it ends, what the audit log has."""

from __future__ import annotations

import functools
import re
import threading
import time
import uuid
from typing import Any

import grpc
import pytest
from services.people import (
    Person,
    Refused,
    administrator,
    fresh,
    newcomer,
    outcome,
    refused,
    rows,
)

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from support.door import wait_until
from support.house import DEADLINE, PASSWORD, House, bearer, call, reason_of
from support.second import connected, second_server


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


@pytest.fixture(scope="module")
def alice(house: House, admin_token: str) -> Person:
    return newcomer(house, admin_token, called="alice")


@pytest.fixture(scope="module")
def bob(house: House, admin_token: str) -> Person:
    return newcomer(house, admin_token, called="bob")


@pytest.fixture
def root(house: House, admin_token: str) -> Person:
    """An administrator for one test, who may watch users and may be revoked."""
    return newcomer(house, admin_token, "admin", called="root")


def sessions(person: Person, of: Person | None = None, **fields: Any) -> pb.ListSessionsResponse:
    request = pb.ListSessionsRequest(parent=(of or person).resource, **fields)
    return person.do("ListSessions", request)


def session_of(person: Person, token: str) -> str:
    request = pb.ListSessionsRequest(parent=person.resource)
    (mine,) = [s for s in person.do("ListSessions", request, token).sessions if s.current]
    return mine.name


class Stream:
    """An open stream of a caller: ``WatchUsers``, ``ImportUsers`` or ``Introspect``."""

    def __init__(self, kind: str, person: Person, token: str, channel: Any = None) -> None:
        self.silence = threading.Event()
        self.answers_once = kind == "ImportUsers"
        self.ended_at = 0.0
        metadata = bearer(token)
        method = person.method(kind) if channel is None else getattr(UserServiceStub(channel), kind)
        if kind == "WatchUsers":
            self.call = method(users_pb.WatchUsersRequest(), metadata=metadata, timeout=60)
            next(self.call)
        elif kind == "ImportUsers":
            name = fresh("row")
            self.call = method.future(self._import(name), metadata=metadata, timeout=60)
            wait_until(lambda: not isinstance(outcome(person.get, f"users/{name}"), Refused))
        else:
            self.call = method(self._ask(token), metadata=metadata, timeout=60)
            next(self.call)
        self.call.add_done_callback(self._note)

    def _ask(self, token: str) -> Any:
        yield pb.IntrospectRequest(token=token)
        self.silence.wait(60)

    def _import(self, name: str) -> Any:
        yield from rows(users_pb.CreateUserRequest(user_id=name))
        self.silence.wait(60)

    def _note(self, _call: object) -> None:
        self.ended_at = time.monotonic()
        self.silence.set()

    def assert_ended_within_a_second_of(self, moment: float) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            self.call.result(timeout=DEADLINE) if self.answers_once else list(self.call)
        assert self.call.code() is grpc.StatusCode.UNAUTHENTICATED
        assert reason_of(caught.value) == "SESSION_ENDED"
        assert self.silence.wait(DEADLINE)
        assert self.ended_at - moment < 1.0

    @property
    def is_open(self) -> bool:
        return self.call.is_active()

    def close(self) -> None:
        self.silence.set()
        self.call.cancel()


@pytest.mark.parametrize("kind", ["WatchUsers", "ImportUsers", "Introspect"])
def test_g11_to_revoke_one_session_ends_exactly_its_streams(root: Person, kind: str) -> None:
    one, other = root.log_in().access_token, root.log_in().access_token
    streams = [Stream(kind, root, token) for token in (one, one, other)]
    name = session_of(root, one)
    before = time.monotonic()
    root.do("RevokeSession", pb.RevokeSessionRequest(name=name))
    for stream in streams[:2]:
        stream.assert_ended_within_a_second_of(before)
    assert not root.is_known(one)
    assert root.is_known(other)
    assert streams[2].is_open
    streams[2].close()


def test_g11_a_revocation_by_another_process_ends_the_streams_here(
    house: House, root: Person
) -> None:
    """Streams on both processes are tested."""
    one, other = root.log_in().access_token, root.log_in().access_token
    with second_server(house) as server, connected(house, server, root.client) as channel:
        there = [Stream("WatchUsers", root, token, channel) for token in (one, other)]
        here = [Stream("WatchUsers", root, token) for token in (one, other)]
        name = session_of(root, one)
        before = time.monotonic()
        root.do("RevokeSession", pb.RevokeSessionRequest(name=name), other)
        for ended in (there[0], here[0]):
            ended.assert_ended_within_a_second_of(before)
        for stream in (there[1], here[1]):
            assert stream.is_open
            stream.close()


@pytest.mark.parametrize("how", ["password", "disabled", "deleted", "roles", "user", "client"])
def test_g11_u12_whatever_ends_a_users_sessions_ends_their_streams(
    admin: Person, root: Person, bob: Person, how: str
) -> None:
    token = root.log_in().access_token
    stream = Stream("WatchUsers", root, token)
    if how == "password":
        request = users_pb.ChangePasswordRequest(
            name=root.resource, current_password=PASSWORD, new_password=PASSWORD + "!"
        )
        assert root.do("ChangePassword", request).ended_sessions == 1
    elif how == "disabled":
        admin.update(root.name, ["state"], state=users_pb.User.STATE_DISABLED)
    elif how == "deleted":
        admin.do("DeleteUser", users_pb.DeleteUserRequest(name=root.resource))
    elif how == "roles":
        admin.update(root.name, ["roles"], roles=["admin", "more"])
    elif how == "user":
        answer = admin.do("RevokeUser", pb.RevokeUserRequest(name=root.resource))
        assert answer.ended_sessions == 2
    else:
        client = root.me().token.client_id
        answer = admin.do("RevokeClient", pb.RevokeClientRequest(client_id=client))
        assert answer.ended_sessions == 2
    # Not from before the call, which may have to hash passwords.
    stream.assert_ended_within_a_second_of(time.monotonic())
    assert not root.is_known(token)
    # Only the password's own change keeps the session that it was made in.
    assert root.is_known(root.tokens.access_token) is (how == "password")
    assert bob.is_known(bob.tokens.access_token)


def test_u19_a_logout_here_is_known_to_another_replica_within_a_second(
    house: House, admin_token: str
) -> None:
    """A log-out of a session, and of a workload without one; open streams there end too."""
    root = newcomer(house, admin_token, "admin", called="root")
    workload = Person(house, "workload", house.client("workload"))
    theirs = workload.do("IssueToken", pb.IssueTokenRequest(), "").access_token
    with (
        second_server(house) as server,
        connected(house, server, root.client) as channel,
        connected(house, server, workload.client) as workloads,
    ):
        held = ((root, root.tokens.access_token, channel), (workload, theirs, workloads))
        for person, token, there in held:
            ask = functools.partial(call, there, metadata=bearer(token))
            assert ask().served
            stream = Stream("WatchUsers", person, token, there) if person is root else None
            before = time.monotonic()
            person.do("Logout", pb.LogoutRequest(), token)
            wait_until(lambda ask=ask: not ask().served)
            assert time.monotonic() - before < 1.0
            assert ask().code is grpc.StatusCode.UNAUTHENTICATED
            if stream is not None:
                stream.assert_ended_within_a_second_of(before)


def test_u13_a_refresh_token_used_twice_ends_the_streams_of_its_family(root: Person) -> None:
    tokens = root.log_in()
    renewed = root.refresh(root.refresh(tokens))
    stream = Stream("WatchUsers", root, renewed.access_token)
    before = time.monotonic()
    assert isinstance(outcome(root.refresh, tokens), Refused)
    stream.assert_ended_within_a_second_of(before)
    assert root.is_known(root.tokens.access_token)


def test_u12_all_but_mine_end(root: Person) -> None:
    others = [root.log_in() for _ in range(2)]
    answer = root.do("RevokeOtherSessions", pb.RevokeOtherSessionsRequest())
    assert answer.ended_sessions == 2
    assert not any(root.is_known(each.access_token) for each in others)
    assert all(isinstance(outcome(root.refresh, each), Refused) for each in others)
    assert root.is_known(root.tokens.access_token)
    assert [session.current for session in sessions(root).sessions] == [True]


def test_a_revoked_user_logs_in_again_at_once(root: Person) -> None:
    """Within the second of the revocation, and the new token is valid."""
    for _ in range(2):
        root.tokens = root.log_in()
        root.do("RevokeUser", pb.RevokeUserRequest(name=root.resource))
        assert not root.is_known(root.tokens.access_token)
    fresh = root.log_in()
    assert root.is_known(fresh.access_token)
    assert root.is_known(root.refresh(fresh).access_token)


def test_a_token_of_a_user_without_a_session_is_revoked_with_the_user(
    house: House, admin: Person, root: Person
) -> None:
    now = int(time.time())
    held = {
        "sub": root.resource,
        "iat": now - 5,
        "client_id": root.me().token.client_id,
    }
    token = house.forge.token(root.client.thumbprint, **held)
    theirs = house.forge.token(root.client.thumbprint, **held | {"sub": "users/missing"})
    assert root.is_known(token)
    admin.do("RevokeUser", pb.RevokeUserRequest(name=root.resource))
    assert not root.is_known(token)
    assert root.is_known(theirs)


def test_a_revoked_client_loses_what_it_has_and_may_come_again(
    house: House, admin: Person, alice: Person
) -> None:
    """Its certificate decides whether it may connect again."""
    workload = Person(house, "workload", house.client("workload"))
    client = "spiffe://example.org/client/workload"
    issue = pb.IssueTokenRequest()
    for _ in range(3):
        old = workload.do("IssueToken", issue, "").access_token
        assert workload.is_known(old)
        admin.do("RevokeClient", pb.RevokeClientRequest(client_id=client))
        assert not workload.is_known(old)
    assert workload.is_known(workload.do("IssueToken", issue, "").access_token)
    assert alice.is_known(alice.tokens.access_token)


def test_M14_a_refresh_token_that_is_revoked_ends_its_session(admin: Person, alice: Person) -> None:
    """So does one that was used already; OK must not leave the session alive (RFC 7009, 2.1)."""
    for who, old in ((alice, False), (alice, True), (admin, False)):
        tokens = alice.log_in()
        given = tokens.refresh_token
        newest = alice.refresh(tokens) if old else tokens
        who.do("RevokeToken", pb.RevokeTokenRequest(token=given))
        assert not alice.is_known(newest.access_token)
        assert refused(alice.refresh, newest).told[0] == "UNAUTHENTICATED"
        who.do("RevokeToken", pb.RevokeTokenRequest(token=given))  # no live token any more
    other = admin.log_in()
    told = alice.refused("RevokeToken", pb.RevokeTokenRequest(token=other.refresh_token))
    assert told.told == ("PERMISSION_DENIED", "NOT_ALLOWED", "")
    assert admin.is_known(admin.refresh(other).access_token)


def test_a_token_is_revoked_by_its_id_alone(admin: Person, alice: Person) -> None:
    """Administrators revoke any ID; other users only that of the call: an ID names no owner."""
    first, second = alice.log_in().access_token, alice.log_in().access_token
    ids = [alice.me(token).token.token_id for token in (first, second)]
    admin.do("RevokeToken", pb.RevokeTokenRequest(token_id=ids[0]))
    assert not alice.is_known(first)
    told = alice.refused("RevokeToken", pb.RevokeTokenRequest(token_id=ids[1]))
    unknown = alice.refused("RevokeToken", pb.RevokeTokenRequest(token_id="unknown"))
    assert told == unknown
    assert told.told == ("PERMISSION_DENIED", "NOT_ALLOWED", "")
    alice.do("RevokeToken", pb.RevokeTokenRequest(token_id=ids[1]), second)
    assert not alice.is_known(second)
    for text in ("", "x" * 513):
        refusal = admin.refused("RevokeToken", pb.RevokeTokenRequest(token_id=text))
        assert refusal.told == ("INVALID_ARGUMENT", "INVALID_FIELD", "token_id")


def test_sessions_are_listed_with_what_is_known_of_them(
    admin: Person, house: House, admin_token: str
) -> None:
    carol = newcomer(house, admin_token, called="carol")
    tokens = carol.refresh(carol.log_in())
    first, second = sessions(carol).sessions
    assert (first.current, second.current) == (True, False)
    assert re.fullmatch(rf"users/{carol.name}/sessions/[0-9a-f-]{{36}}", first.name)
    assert first.client_id == carol.me().token.client_id
    assert first.create_time == first.last_use_time
    assert second.create_time.ToNanoseconds() < second.last_use_time.ToNanoseconds()
    assert second.expire_time == tokens.refresh_token_expire_time
    seen = sessions(admin, carol)
    assert [s.name for s in seen.sessions] == [first.name, second.name]
    assert not any(session.current for session in seen.sessions)
    page = sessions(carol, page_size=1)
    assert [s.name for s in page.sessions] == [first.name]
    rest = sessions(carol, page_size=1, page_token=page.next_page_token)
    assert [s.name for s in rest.sessions] == [second.name]
    assert rest.next_page_token == ""
    forged = pb.ListSessionsRequest(parent=carol.resource, page_token=page.next_page_token)
    assert admin.refused("ListSessions", forged).field == "page_token"


def test_u20_who_is_no_administrator_learns_nothing_of_others(
    admin: Person, alice: Person, bob: Person
) -> None:
    """The answer is the same to the byte, whether the user or session exists or not."""
    theirs = sessions(bob).sessions[0].name
    session_id = theirs.rpartition("/")[2]
    missing = f"users/missing/sessions/{uuid.uuid4()}"
    for method, requests in {
        "ListSessions": [
            pb.ListSessionsRequest(parent=name) for name in (bob.resource, "users/missing")
        ],
        "RevokeUser": [pb.RevokeUserRequest(name=n) for n in (bob.resource, "users/missing")],
        "RevokeSession": [pb.RevokeSessionRequest(name=name) for name in (theirs, missing)],
    }.items():
        one, other = (alice.refused(method, request) for request in requests)
        assert one == other
        assert one.told == ("PERMISSION_DENIED", "NOT_ALLOWED", "")
    for prefix in ("users/-", alice.resource):
        one, other = (
            alice.refused("RevokeSession", pb.RevokeSessionRequest(name=f"{prefix}/sessions/{s}"))
            for s in (session_id, uuid.uuid4())
        )
        assert one == other
        assert one.told == ("NOT_FOUND", "SESSION_NOT_FOUND", "")
    assert bob.is_known(bob.tokens.access_token)
    denied = alice.refused("RevokeClient", pb.RevokeClientRequest(client_id="spiffe://a/b"))
    assert denied.told == ("PERMISSION_DENIED", "NOT_ALLOWED", "")


def test_own_sessions_and_as_an_administrator_any_are_revoked_by_id_alone(
    admin: Person, alice: Person
) -> None:
    for by in (alice, admin):
        tokens = alice.log_in()
        session_id = session_of(alice, tokens.access_token).rpartition("/")[2]
        request = pb.RevokeSessionRequest(name=f"users/-/sessions/{session_id}")
        by.do("RevokeSession", request)
        assert not alice.is_known(tokens.access_token)
        assert by.refused("RevokeSession", request).told[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "request_", "told"),
    [
        ("RevokeUser", pb.RevokeUserRequest(name="users/missing"), "NOT_FOUND"),
        ("ListSessions", pb.ListSessionsRequest(parent="users/missing"), "NOT_FOUND"),
        ("RevokeUser", pb.RevokeUserRequest(name="missing"), "name"),
        ("ListSessions", pb.ListSessionsRequest(parent="users/-"), "parent"),
        ("ListSessions", pb.ListSessionsRequest(parent="users/a", page_size=-1), "page_size"),
        ("RevokeSession", pb.RevokeSessionRequest(name="users/a/sessions/x"), "name"),
        ("RevokeSession", pb.RevokeSessionRequest(name=str(uuid.uuid4())), "name"),
        ("RevokeClient", pb.RevokeClientRequest(client_id="laptop"), "client_id"),
        ("RevokeClient", pb.RevokeClientRequest(), "client_id"),
    ],
)
def test_administrators_are_told_what_is_wrong(
    admin: Person, method: str, request_: Any, told: str
) -> None:
    refusal = admin.refused(method, request_)
    assert told in {refusal.code, refusal.field}


def test_a_token_without_a_session_has_no_others(house: House) -> None:
    workload = Person(house, "workload", house.client("workload"))
    token = workload.do("IssueToken", pb.IssueTokenRequest(), "").access_token
    refusal = workload.refused("RevokeOtherSessions", pb.RevokeOtherSessionsRequest(), token)
    assert refusal.told == ("FAILED_PRECONDITION", "NO_SESSION", "")


def test_every_revocation_is_written_down(
    admin: Person, root: Person, log: list[dict[str, Any]]
) -> None:
    name = session_of(root, root.log_in().access_token)
    client = root.me().token.client_id
    admin.do("RevokeToken", pb.RevokeTokenRequest(token_id="an-id"))
    root.do("RevokeSession", pb.RevokeSessionRequest(name=name))
    root.do("RevokeOtherSessions", pb.RevokeOtherSessionsRequest())
    admin.do("RevokeUser", pb.RevokeUserRequest(name=root.resource))
    admin.do("RevokeClient", pb.RevokeClientRequest(client_id=client))
    written = {line["event"]: line for line in log if "revoked" in line["event"]}
    assert set(written) == {
        "token revoked",
        "session revoked",
        "other sessions revoked",
        "user revoked",
        "client revoked",
    }
    assert written["token revoked"]["jti"] == "an-id"
    assert written["session revoked"]["session"] == name.rpartition("/")[2]
    assert written["session revoked"]["by"] == root.resource
    assert written["user revoked"]["user"] == root.name
    assert written["user revoked"]["by"] == admin.resource
    assert written["client revoked"]["client"] == client
    assert all(line["peer"].startswith("spiffe://") for line in written.values())
