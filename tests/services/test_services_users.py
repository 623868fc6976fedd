"""The contract of UserService: create, get, list, update, delete."""

import time
import uuid
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from services.people import (
    Person,
    administrator,
    fresh,
    newcomer,
    refused,
    update_request,
    without_tailer,
)

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_server.store.database import Database
from secure_server.users import AccountState, records
from secure_server.users.account_factory import AccountFactory
from support.house import PASSWORD, House, running_house

REFUSED = ("UNAUTHENTICATED", "CREDENTIALS_REFUSED", "")
NOT_FOUND = ("NOT_FOUND", "USER_NOT_FOUND", "")
INVALID = ("INVALID_ARGUMENT", "INVALID_FIELD")


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


def test_a_created_user_is_what_was_asked_for_and_what_the_server_adds(admin: Person) -> None:
    """`name` is ignored, roles are sorted without repetitions, the default state is ACTIVE."""
    name, now = fresh("new"), time.time()
    user = admin.create(
        name,
        name="users/another",
        email="ada@example.com",
        display_name="Ada 👩‍💻",
        roles=["clerk", "auditor", "clerk"],
    )
    assert user.name == f"users/{name}"
    assert (user.email, user.display_name) == ("ada@example.com", "Ada 👩‍💻")
    assert user.roles == ["auditor", "clerk"]
    assert user.state == users_pb.User.STATE_ACTIVE
    assert uuid.UUID(user.uid).version == 4
    assert user.create_time == user.update_time
    assert user.create_time.seconds == pytest.approx(now, abs=30)
    assert user.etag
    assert admin.get(user.name) == user
    disabled = admin.create(fresh("off"), state=users_pb.User.STATE_DISABLED)
    assert disabled.state == users_pb.User.STATE_DISABLED


def test_a_taken_name_is_taken(admin: Person) -> None:
    name = fresh("new")
    before = admin.create(name)
    refusal = refused(admin.create, name, roles=["admin"])
    assert refusal.told == ("ALREADY_EXISTS", "USER_ALREADY_EXISTS", "")
    assert admin.get(before.name) == before


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("user.uid", {"uid": str(uuid.uuid4())}),
        ("user.create_time", {"create_time": Timestamp(seconds=1)}),
        ("user.update_time", {"update_time": Timestamp(nanos=1)}),
        ("state", {"state": 7}),
        ("email", {"email": "missing"}),
        ("email", {"email": f"{'x' * 250}@x.org"}),
        ("display_name", {"display_name": "x" * 129}),
        ("display_name", {"display_name": "a\x1bb"}),
        ("roles", {"roles": ["Admin"]}),
        ("roles", {"roles": ["x" * 64]}),
        ("roles", {"roles": [f"r{number}" for number in range(33)]}),
    ],
)
def test_what_breaks_a_rule_is_invalid_and_the_field_is_named(
    admin: Person, field: str, fields: dict[str, object]
) -> None:
    name = fresh("bad")
    assert refused(admin.create, name, **fields).told == (*INVALID, field)
    assert refused(admin.get, f"users/{name}").told == NOT_FOUND


@pytest.mark.parametrize(
    ("method", "message", "field"),
    [
        ("CreateUser", users_pb.CreateUserRequest(), "user_id"),
        ("CreateUser", users_pb.CreateUserRequest(user_id="x" * 64), "user_id"),
        ("CreateUser", users_pb.CreateUserRequest(user_id="a-"), "user_id"),
        ("CreateUser", users_pb.CreateUserRequest(user_id="a", password="short"), "password"),
        ("CreateUser", users_pb.CreateUserRequest(user_id="a", request_id="1"), "request_id"),
        ("GetUser", users_pb.GetUserRequest(), "name"),
        ("GetUser", users_pb.GetUserRequest(name="users/"), "name"),
        ("GetUser", users_pb.GetUserRequest(name="users/a/b"), "name"),
        ("GetUser", users_pb.GetUserRequest(name="groups/a"), "name"),
        ("GetUser", users_pb.GetUserRequest(name="users/-"), "name"),
        ("ListUsers", users_pb.ListUsersRequest(page_size=-1), "page_size"),
        ("ListUsers", users_pb.ListUsersRequest(page_token="x"), "page_token"),
        ("UpdateUser", users_pb.UpdateUserRequest(), "user.name"),
        ("UpdateUser", update_request("admin", ["phone"]), "update_mask"),
        ("UpdateUser", update_request("admin", ["email"], email="x"), "email"),
        ("UpdateUser", update_request("admin", ["state"]), "state"),
        ("UpdateUser", update_request("admin", ["*"], roles=["admin"]), "state"),
        ("DeleteUser", users_pb.DeleteUserRequest(name="admin"), "name"),
        ("ChangePassword", users_pb.ChangePasswordRequest(), "name"),
        (
            "ChangePassword",
            users_pb.ChangePasswordRequest(
                name="users/admin", current_password=PASSWORD, new_password=PASSWORD
            ),
            "new_password",
        ),
        ("WatchUsers", users_pb.WatchUsersRequest(resume_token="x"), "resume_token"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_invalid_argument_names_its_field(
    admin: Person, method: str, message: object, field: str
) -> None:
    refusal = admin.refused(method, message)
    assert refusal.told == (*INVALID, field)
    assert f"`{field.removeprefix('user.')}`" in refusal.text.replace("`user.", "`")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("GetUser", users_pb.GetUserRequest(name="users/missing")),
        ("UpdateUser", update_request("missing", ["email"], email="a@example.com")),
        ("UpdateUser", update_request("missing", ["email"], etag="stale")),
        ("DeleteUser", users_pb.DeleteUserRequest(name="users/missing")),
        ("DeleteUser", users_pb.DeleteUserRequest(name="users/missing", etag="stale")),
    ],
    ids=["get", "update", "update etag", "delete", "delete etag"],
)
def test_an_administrator_learns_that_there_is_no_such_user(
    admin: Person, method: str, message: object
) -> None:
    assert admin.refused(method, message).told == NOT_FOUND


def test_a_plain_user_reads_and_changes_the_own_record(house: House, admin_token: str) -> None:
    """`email` and `display_name`, with a mask and without; the session stays alive."""
    user = newcomer(house, admin_token)
    before = user.get()
    after = user.update(user.name, ["email"], email="me@example.com", display_name="not named")
    assert (after.email, after.display_name) == ("me@example.com", "")
    assert after.etag != before.etag
    assert (after.uid, after.create_time) == (before.uid, before.create_time)
    after = user.update(user.name, None, display_name="Me")
    assert (after.email, after.display_name) == ("me@example.com", "Me")
    assert user.get() == after


@pytest.mark.parametrize(
    "method", ["CreateUser", "ListUsers", "DeleteUser", "ImportUsers", "WatchUsers"]
)
def test_the_rest_is_for_administrators(house: House, admin_token: str, method: str) -> None:
    workload = Person(house, "workload", house.client("workload"))
    workload.tokens = workload.do("IssueToken", tokens_pb.IssueTokenRequest(), "")
    message = getattr(users_pb, f"{method}Request")()
    request = iter([message]) if method == "ImportUsers" else message
    refusal = workload.refused(method, request)
    assert refusal.told == ("PERMISSION_DENIED", "NOT_ALLOWED", "")


def test_a_mask_decides_what_is_changed_and_a_star_means_all_four(admin: Person) -> None:
    name = fresh("mask")
    admin.create(name, email="a@example.com", display_name="A", roles=["clerk"])
    user = admin.update(name, ["roles", "display_name"], roles=["z", "b", "z"], email="x@x.org")
    assert (user.email, user.display_name, user.roles) == ("a@example.com", "", ["b", "z"])
    user = admin.update(name, ["*"], email="c@example.com", state=users_pb.User.STATE_DISABLED)
    assert (user.email, user.display_name, list(user.roles)) == ("c@example.com", "", [])
    assert user.state == users_pb.User.STATE_DISABLED
    user = admin.update(name, None, display_name="D", state=users_pb.User.STATE_ACTIVE)
    assert (user.email, user.display_name) == ("c@example.com", "D")
    assert user.state == users_pb.User.STATE_ACTIVE
    assert admin.get(user.name) == user
    assert admin.update(name, ["*"], email="c@example.com", display_name="D", state=1) == user, (
        "what changes nothing leaves the etag"
    )


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"roles": ["clerk"]}, True),
        ({"state": users_pb.User.STATE_DISABLED}, True),
        ({"display_name": "Ada"}, False),
    ],
    ids=["roles", "disabled", "display name"],
)
def test_disabling_and_other_roles_end_the_sessions_at_once(
    house: House,
    admin_token: str,
    admin: Person,
    fields: dict[str, object],
    ends: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_tailer(monkeypatch)
    user = newcomer(house, admin_token)
    assert user.is_known(user.tokens.access_token)
    admin.update(user.name, list(fields), **fields)
    assert user.is_known(user.tokens.access_token) is not ends
    if ends:
        assert refused(user.refresh, user.tokens).told == REFUSED
    else:
        assert user.refresh(user.tokens).access_token


def test_a_deleted_user_is_gone_and_the_next_of_that_name_is_another(
    house: House, admin_token: str, admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions end at once, and a new user of the name revives none of them."""
    without_tailer(monkeypatch)
    user = newcomer(house, admin_token)
    before = admin.get(user.resource)
    admin.do("DeleteUser", users_pb.DeleteUserRequest(name=user.resource))
    assert admin.refused("GetUser", users_pb.GetUserRequest(name=user.resource)).told == NOT_FOUND
    for again in (False, True):
        assert not user.is_known(user.tokens.access_token)
        assert refused(user.refresh, user.tokens).told == REFUSED
        assert refused(user.log_in).told == REFUSED
        if not again:
            assert admin.create(user.name).uid != before.uid


def pages(admin: Person, size: int) -> list[list[str]]:
    result, token = [], ""
    while True:
        request = users_pb.ListUsersRequest(page_size=size, page_token=token)
        page = admin.do("ListUsers", request)
        result.append([user.name for user in page.users])
        token = page.next_page_token
        if not token:
            return result


def add_users(house: House, count: int) -> list[str]:
    """Add many users directly to the store, to list them."""
    mint = AccountFactory(time.time, lambda size: uuid.uuid4().bytes[:size])
    names = [f"u{number:04}" for number in range(count)]
    database = Database.open(house.config.store.url)
    with database.write() as connection:
        for name in reversed(names):
            account = mint.account(
                name, email="", display_name="", roles=("clerk",), state=AccountState.ACTIVE
            )
            records.add(connection, mint.record(account, None))
    database.close()
    return [f"users/{name}" for name in names]


def test_paging_visits_every_user_once_sorted_by_name_whatever_the_size(tmp_path: Path) -> None:
    """0 means 50, more than 1,000 means 1,000; the last page has no token."""
    with running_house(tmp_path) as house:
        admin = administrator(house, house.first_log_in().access_token)
        expected = ["users/admin", *add_users(house, 1004)]
        for size, first in [(0, 50), (67, 67), (1000, 1000), (5000, 1000), (2**31 - 1, 1000)]:
            listed = pages(admin, size)
            assert [name for page in listed for name in page] == expected
            # Not only "all but the last": a single page would be the last.
            assert len(listed[0]) == first
            assert [len(page) for page in listed[:-1]] == [first] * (len(listed) - 1)
        assert [len(page) for page in pages(admin, 201)] == [201] * 5, "no empty page at the end"

        first = admin.do("ListUsers", users_pb.ListUsersRequest(page_size=10))
        last = first.users[-1]
        admin.do("DeleteUser", users_pb.DeleteUserRequest(name=last.name))
        admin.create("u0007-between")
        request = users_pb.ListUsersRequest(page_size=1, page_token=first.next_page_token)
        assert [user.name for user in admin.do("ListUsers", request).users] == ["users/u0009"]
        assert expected[10] == "users/u0009"
