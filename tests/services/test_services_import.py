"""ImportUsers: each row succeeds or fails by itself."""

import threading
import uuid
from collections.abc import Iterator

import grpc
import pytest
from services.people import Person, administrator, fresh, refused, rows

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from support.house import DEADLINE, PASSWORD, House, bearer

Row = users_pb.CreateUserRequest
CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


def load(admin: Person, *requests: Row) -> users_pb.ImportUsersResponse:
    return admin.do("ImportUsers", rows(*requests))


def test_an_empty_stream_imports_nothing(admin: Person) -> None:
    assert load(admin) == users_pb.ImportUsersResponse()


def test_bad_rows_are_reported_and_the_others_are_created(admin: Person) -> None:
    """A report has the row's number in the stream, its user, a code and the mistake."""
    good = [fresh("row") for _ in range(3)]
    report = load(
        admin,
        Row(user_id=good[0], user=users_pb.User(roles=["clerk"]), password="initial password"),
        Row(user_id="Not a name"),
        Row(user_id=good[0]),
        Row(user_id=good[1], user=users_pb.User(email="a@example.com")),
        Row(user_id=fresh("row"), password="short"),
        Row(user_id=fresh("row"), user=users_pb.User(uid="x")),
        Row(user_id=fresh("row"), user=users_pb.User(state=9)),
        Row(user_id=fresh("row"), password="x" * 100_000),
        Row(),
        Row(user_id=good[2]),
    )
    assert (report.imported_count, report.failed_count) == (3, 7)
    failures = {one.index: (CODES[one.code], one.message) for one in report.failures}
    assert list(failures) == [1, 2, 4, 5, 6, 7, 8]
    assert failures.pop(2)[0] == "ALREADY_EXISTS"
    assert {code for code, _ in failures.values()} == {"INVALID_ARGUMENT"}
    for index, field in {1: "user_id", 4: "password", 5: "user.uid", 6: "state"}.items():
        assert f"`{field}`" in failures[index][1]
    assert report.failures[0].user_id == "Not a name"
    assert report.failures[1].user_id == good[0]
    assert admin.get(f"users/{good[0]}").roles == ["clerk"]
    assert admin.get(f"users/{good[1]}").email == "a@example.com"
    assert refused(_log_in, admin, good[0], "initial password").reason == "PASSWORD_CHANGE_REQUIRED"


def _log_in(admin: Person, user: str, password: str) -> object:
    return admin.do("Login", tokens_pb.LoginRequest(user_name=user, password=password), "")


def test_a_file_sent_again_reports_its_users_as_existing(admin: Person) -> None:
    """Rows with a request_id are the same requests again, and succeed (AIP-155)."""
    plain, named = (
        Row(user_id=fresh("row")),
        Row(user_id=fresh("row"), request_id=str(uuid.uuid4())),
    )
    assert load(admin, plain, named).imported_count == 2
    again = load(admin, plain, named)
    assert (again.imported_count, again.failed_count) == (1, 1)
    (failure,) = again.failures
    assert (failure.index, CODES[failure.code]) == (0, "ALREADY_EXISTS")
    assert failure.user_id == plain.user_id


def test_of_very_many_failures_all_are_counted_and_the_first_1000_told(admin: Person) -> None:
    """So the report stays below the size limit of messages for all rows."""
    name = fresh("row")
    report = load(admin, *[Row(user_id="É" * 5000, password=PASSWORD)] * 1500, Row(user_id=name))
    assert (report.imported_count, report.failed_count) == (1, 1500)
    assert [failure.index for failure in report.failures] == list(range(1000))
    assert report.ByteSize() < 1_000_000
    assert admin.get(f"users/{name}").name


def test_rows_before_a_break_stay(admin: Person) -> None:
    """Each row is committed as it arrives: a watcher sees it while the stream is open."""
    names, go_on = [fresh("row") for _ in range(2)], threading.Event()
    watcher, _ = admin.watch()

    def broken() -> Iterator[users_pb.ImportUsersRequest]:
        yield from rows(*[Row(user_id=name) for name in names])
        go_on.wait()

    call = admin.method("ImportUsers").future(
        broken(), metadata=bearer(admin.tokens.access_token), timeout=DEADLINE
    )
    try:
        seen = [next(watcher).user.name for _ in names]
        assert not call.done()
        call.cancel()
    finally:
        go_on.set()
        watcher.cancel()
    assert seen == [f"users/{name}" for name in names]
    assert all(admin.get(name) for name in seen)
    report = load(admin, *[Row(user_id=name) for name in [*names, fresh("row")]])
    assert (report.imported_count, report.failed_count) == (1, 2)
