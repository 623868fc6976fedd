"""Operations: another process holds the store's write lock for long."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from stress.revoke_client import GATEWAY, add_sessions, count_sessions, store_of
from support.running import DEADLINE, Running, bearer, running_server

PASSWORD = "correct horse battery staple"


class Caller:
    """The administrator, over one connection."""

    def __init__(self, running: Running) -> None:
        self.metadata = bearer(running.admin_token())
        self.channel = running.admin.channel(running.address)
        self.users, self.tokens = UserServiceStub(self.channel), TokenServiceStub(self.channel)

    def do(self, method: Any, request: Any, timeout: float = DEADLINE) -> Any:
        return method(request, metadata=self.metadata, timeout=timeout)

    def create(self, name: str, timeout: float = DEADLINE) -> Any:
        return self.do(self.users.CreateUser, users_pb.CreateUserRequest(user_id=name), timeout)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("locked")) as running:
        yield running


@pytest.fixture
def caller(running: Running) -> Iterator[Caller]:
    caller = Caller(running)
    yield caller
    caller.channel.close()


@contextmanager
def locked(running: Running) -> Iterator[None]:
    database = sqlite3.connect(store_of(running.installation), isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
        database.close()


def reads(caller: Caller) -> list[Callable[[], Any]]:
    token = caller.metadata[0][1].removeprefix("Bearer ")
    return [
        lambda: caller.do(caller.users.ListUsers, users_pb.ListUsersRequest()),
        lambda: caller.do(caller.users.GetUser, users_pb.GetUserRequest(name="users/admin")),
        lambda: caller.do(caller.tokens.WhoAmI, tokens_pb.WhoAmIRequest()),
        lambda: caller.do(caller.tokens.GetKeySet, tokens_pb.GetKeySetRequest()),
        lambda: caller.do(
            caller.tokens.ListSessions, tokens_pb.ListSessionsRequest(parent="users/admin")
        ),
        lambda: list(
            caller.do(
                caller.tokens.Introspect, iter([tokens_pb.IntrospectRequest(token=token)] * 3)
            )
        ),
    ]


def test_calls_that_write_nothing_are_unhurt_by_a_locked_store(
    running: Running, caller: Caller
) -> None:
    """Also while more writers wait than there are threads for them."""

    def write(number: int) -> grpc.StatusCode:
        try:
            caller.create(f"late-{number}")
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    for read in reads(caller):
        read()
    with locked(running), ThreadPoolExecutor(200) as writers:
        over = threading.Event()
        codes: list[grpc.StatusCode] = []

        def press(writer: int) -> None:
            while not over.is_set():
                codes.append(write(writer))
                over.wait(0.2)

        pressed = [writers.submit(press, number) for number in range(200)]
        took = []
        begin = time.monotonic()
        try:
            while time.monotonic() - begin < 4:
                for read in reads(caller):
                    asked = time.monotonic()
                    read()
                    took.append(time.monotonic() - asked)
        finally:
            over.set()
        for one in pressed:
            one.result()
    assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
    assert sorted(took)[len(took) // 2] < 0.5
    assert len(took) > 20


def test_a_writer_is_told_within_a_second_that_the_store_is_locked(
    running: Running, caller: Caller
) -> None:
    log_in = tokens_pb.LoginRequest(user_name="admin", password=running._password)
    user = users_pb.User(name="users/admin", display_name="another")
    writers: list[Callable[[], Any]] = [
        lambda: caller.create("locked-out"),
        lambda: caller.do(caller.users.UpdateUser, users_pb.UpdateUserRequest(user=user)),
        lambda: caller.tokens.Login(log_in, timeout=DEADLINE),
        lambda: caller.do(caller.tokens.RevokeToken, tokens_pb.RevokeTokenRequest(token_id="some")),
        lambda: caller.do(
            caller.tokens.RevokeClient, tokens_pb.RevokeClientRequest(client_id=GATEWAY)
        ),
        lambda: caller.do(
            caller.users.ImportUsers,
            iter([users_pb.ImportUsersRequest(row=users_pb.CreateUserRequest(user_id="row"))]),
        ),
    ]
    for write in writers:
        with locked(running):
            begin = time.monotonic()
            with pytest.raises(grpc.RpcError) as refused:
                write()
            took = time.monotonic() - begin
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert took < 2  # and not five, with the work before the write on a busy machine
        write()


def test_the_callers_deadline_counts_too(running: Running, caller: Caller) -> None:
    """The server stops waiting and answers before the caller's deadline."""
    caller.create("before")
    told = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    codes = []
    for number in range(5):  # on a busy machine an answer may come late
        with locked(running), pytest.raises(grpc.RpcError) as refused:
            caller.create(f"hasty-{number}", timeout=0.3)
        codes.append(refused.value.code())
    assert grpc.StatusCode.UNAVAILABLE in codes
    assert set(codes) <= told
    time.sleep(1)  # longer than any write waits
    for number in range(5):
        with pytest.raises(grpc.RpcError) as unknown:
            caller.do(caller.users.GetUser, users_pb.GetUserRequest(name=f"users/hasty-{number}"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    caller.create("hasty-0")


def test_of_a_client_with_20000_sessions_all_end_while_others_write(
    running: Running, caller: Caller
) -> None:
    store = store_of(running.installation)
    add_sessions(store, GATEWAY, "admin", 20_000)
    request = tokens_pb.RevokeClientRequest(client_id=GATEWAY)
    answer = caller.do(caller.tokens.RevokeClient, request)
    assert answer.ended_sessions == 20_000
    left_at_first = count_sessions(store, GATEWAY)
    written = 0
    end = time.monotonic() + DEADLINE
    while count_sessions(store, GATEWAY):
        caller.create(f"between-{written}", timeout=5)
        written += 1
        assert time.monotonic() < end
    assert left_at_first > 10_000
    assert written > 1


def test_a_server_that_is_killed_after_the_cut_has_ended_all_sessions(tmp_path: Path) -> None:
    """The next server refuses their tokens and deletes the sessions."""
    with running_server(tmp_path) as running:
        gateway = running.installation.client("gateway")
        caller = Caller(running)
        log_in = tokens_pb.LoginRequest(user_name="admin", password=running._password)
        with gateway.channel(running.address) as channel:
            tokens = TokenServiceStub(channel).Login(log_in, timeout=DEADLINE)
        add_sessions(store_of(running.installation), GATEWAY, "admin", 20_000)
        caller.do(caller.tokens.RevokeClient, tokens_pb.RevokeClientRequest(client_id=GATEWAY))
        running.server.kill()
        assert count_sessions(store_of(running.installation), GATEWAY) > 0
        caller.channel.close()

        server = running.installation.start()
        try:
            with gateway.channel(server.address) as channel:
                stub = TokenServiceStub(channel)
                refusals = []
                for call, request, metadata in (
                    (stub.WhoAmI, tokens_pb.WhoAmIRequest(), bearer(tokens.access_token)),
                    (
                        stub.Refresh,
                        tokens_pb.RefreshRequest(refresh_token=tokens.refresh_token),
                        (),
                    ),
                ):
                    with pytest.raises(grpc.RpcError) as refused:
                        call(request, metadata=metadata, timeout=DEADLINE, wait_for_ready=True)
                    refusals.append(refused.value.code())
            assert refusals == [grpc.StatusCode.UNAUTHENTICATED] * 2
            end = time.monotonic() + DEADLINE
            while count_sessions(store_of(running.installation), GATEWAY):
                assert time.monotonic() < end
                time.sleep(0.02)
        finally:
            server.stop()


def test_a_user_with_very_many_sessions_can_be_deleted(running: Running, caller: Caller) -> None:
    caller.create("busy")
    add_sessions(store_of(running.installation), "spiffe://x/busy", "busy", 5_000)
    caller.do(caller.users.DeleteUser, users_pb.DeleteUserRequest(name="users/busy"))
    assert count_sessions(store_of(running.installation), "spiffe://x/busy") == 0
    with pytest.raises(grpc.RpcError) as gone:
        caller.do(caller.users.GetUser, users_pb.GetUserRequest(name="users/busy"))
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
