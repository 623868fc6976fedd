"""Group U: records of other users, masks, etags, repeated requests and forged cursors."""

import base64
import threading
import uuid

import pytest
from services.people import (
    Person,
    Refused,
    administrator,
    at_once,
    fresh,
    newcomer,
    outcome,
    refused,
    update_request,
)

from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_server.users import Accounts
from support.house import PASSWORD, House

NOT_ALLOWED = ("PERMISSION_DENIED", "NOT_ALLOWED", "")


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


@pytest.fixture(scope="module")
def alice(house: House, admin_token: str) -> Person:
    return newcomer(house, admin_token, called="alice")


@pytest.fixture(scope="module")
def bob(admin: Person) -> users_pb.User:
    return admin.create(fresh("bob"), email="bob@example.com", roles=["auditor"])


@pytest.mark.parametrize(
    ("method", "request_for"),
    [
        ("GetUser", lambda name: users_pb.GetUserRequest(name=name)),
        (
            "UpdateUser",
            lambda name: update_request(name.removeprefix("users/"), ["email"], email="a@x.org"),
        ),
        (
            "UpdateUser",
            lambda name: update_request(name.removeprefix("users/"), etag="stale", roles=["admin"]),
        ),
        ("DeleteUser", lambda name: users_pb.DeleteUserRequest(name=name)),
        ("DeleteUser", lambda name: users_pb.DeleteUserRequest(name=name, etag="stale")),
        (
            "ChangePassword",
            lambda name: users_pb.ChangePasswordRequest(
                name=name, current_password=PASSWORD, new_password="another horse, another battery"
            ),
        ),
    ],
    ids=["get", "update", "update roles", "delete", "delete stale", "change password"],
)
def test_U20_another_users_record_answers_the_same_whether_it_exists_or_not(
    admin: Person, alice: Person, bob: users_pb.User, method: str, request_for
) -> None:
    """PERMISSION_DENIED for both, to the last byte of the trailers (AIP-211)."""
    refusals = {
        alice.refused(method, request_for(name))
        for name in (bob.name, "users/admin", f"users/{fresh('missing')}")
    }
    assert len(refusals) == 1, refusals
    code, reason, field = refusals.pop().told
    assert (code, reason, field) == NOT_ALLOWED
    assert admin.get(bob.name) == bob


@pytest.mark.parametrize(
    "paths",
    [
        ["roles"],
        ["state"],
        ["password_hash"],
        ["*"],
        ["uid"],
        ["name"],
        ["etag"],
        ["create_time"],
        ["unknown"],
        ["user.roles"],
        ["roles.0"],
        ["email", "roles"],
        ["email", "*"],
        ["ROLES"],
        [" roles"],
        [""],
        None,
    ],
    ids=str,
)
def test_U21_no_update_mask_raises_a_plain_user(alice: Person, paths: list[str] | None) -> None:
    """Refused as a whole: not even the field that she may change is changed."""
    before = alice.get()
    refusal = refused(
        alice.update,
        alice.name,
        paths,
        uid=str(uuid.uuid4()),
        email="mallory@example.com",
        roles=["admin"],
        state=users_pb.User.STATE_ACTIVE,
        etag=before.etag,
    )
    assert refusal.told in {
        NOT_ALLOWED,
        ("INVALID_ARGUMENT", "INVALID_FIELD", "update_mask"),
    }
    assert alice.get() == before
    assert not alice.me().token.roles


def test_U21_an_empty_mask_and_read_only_fields_change_nothing(alice: Person) -> None:
    before = alice.get()
    assert alice.update(alice.name, [], roles=["admin"], email="mallory@example.com") == before
    assert alice.update(alice.name, None, uid="x", etag=before.etag) == before
    assert alice.get() == before


@pytest.mark.parametrize("path", ["password_hash", "uid", "name", "etag", "update_time", "roles.0"])
def test_U21_what_is_read_only_stays_so_for_administrators(
    admin: Person, bob: users_pb.User, path: str
) -> None:
    refusal = refused(admin.update, bob.name.removeprefix("users/"), [path, "email"], uid="x")
    assert refusal.told == ("INVALID_ARGUMENT", "INVALID_FIELD", "update_mask")
    assert admin.get(bob.name) == bob


def test_U22_a_stale_etag_is_aborted_and_the_present_one_works(admin: Person) -> None:
    name = fresh("etag")
    first = admin.create(name)
    second = admin.update(name, ["email"], email="a@example.com", etag=first.etag)
    assert second.etag != first.etag
    delete = users_pb.DeleteUserRequest(name=first.name, etag=first.etag)
    for refusal in (
        refused(admin.update, name, ["email"], email="b@example.com", etag=first.etag),
        admin.refused("DeleteUser", delete),
    ):
        assert refusal.told == ("ABORTED", "STALE_ETAG", "")
    assert admin.get(first.name) == second
    admin.do("DeleteUser", users_pb.DeleteUserRequest(name=first.name, etag=second.etag))


def test_U22_of_two_updates_with_one_etag_a_single_one_happens(
    admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fresh("etag")
    etag = admin.create(name).etag
    together, real = threading.Barrier(2, timeout=30), Accounts.update

    def update(*arguments: object) -> object:
        together.wait()
        return real(*arguments)

    monkeypatch.setattr(Accounts, "update", update)
    outcomes = at_once(
        [
            lambda email=email: admin.update(name, ["email"], email=email, etag=etag)
            for email in ("a@example.com", "b@example.com")
        ]
    )
    assert [one.code for one in outcomes if isinstance(one, Refused)] == ["ABORTED"]


def creation(name: str, request_id: str, password: str = "", **fields: object):
    return users_pb.CreateUserRequest(
        user_id=name, user=users_pb.User(**fields), password=password, request_id=request_id
    )


def test_U23_the_same_request_again_is_one_user_even_of_six_at_once(admin: Person) -> None:
    request = creation(fresh("again"), str(uuid.uuid4()), roles=["auditor"])
    outcomes = at_once([lambda: admin.do("CreateUser", request)] * 6)
    assert len({one.uid for one in outcomes}) == 1
    admin.update(request.user_id, ["roles"], roles=[])
    assert admin.do("CreateUser", request) == outcomes[0], "the answer that was given first"
    assert not admin.get(f"users/{request.user_id}").roles, "and nothing is done again"


def test_U23_another_body_under_the_same_request_id_is_invalid(admin: Person) -> None:
    name, request_id = fresh("again"), str(uuid.uuid4())
    admin.do("CreateUser", creation(name, request_id, PASSWORD, email="a@example.com"))
    for other in (
        creation(fresh("other"), request_id, PASSWORD, email="a@example.com"),
        creation(name, request_id, PASSWORD, email="b@example.com"),
        creation(name, request_id, PASSWORD, email="a@example.com", roles=["admin"]),
        creation(name, request_id, "another password", email="a@example.com"),
        creation(name, request_id, email="a@example.com"),
    ):
        assert admin.refused("CreateUser", other).told == (
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "request_id",
        )


def _page(person: Person, token: str = "") -> users_pb.ListUsersResponse:
    return person.do("ListUsers", users_pb.ListUsersRequest(page_size=1, page_token=token))


def test_U24_page_tokens_are_the_servers_own_and_their_callers_own(
    house: House, admin_token: str, admin: Person, bob: users_pb.User
) -> None:
    second = newcomer(house, admin_token, "admin", called="second")
    good = _page(admin).next_page_token
    assert _page(admin, good).users
    stream, watching = admin.watch()
    stream.cancel()
    sealed = bytearray(base64.urlsafe_b64decode(good))
    sealed[-1] ^= 1
    for forged in (
        "admin",
        good[:-4],
        good + "AAAA",
        "A" + good[1:] if good[0] != "A" else "B" + good[1:],
        base64.urlsafe_b64encode(sealed).decode(),
        base64.urlsafe_b64encode(b"admin").decode(),
        f" {good}",
        watching.resume_token,
        _page(second).next_page_token,
        "\u0430\0" * 100,
        "A" * 100_000,
    ):
        refusal = outcome(_page, admin, forged)
        assert isinstance(refusal, Refused), forged
        assert refusal.told == ("INVALID_ARGUMENT", "INVALID_FIELD", "page_token")


def test_U24_resume_tokens_are_the_servers_own(admin: Person, bob: users_pb.User) -> None:
    stream, watching = admin.watch()
    stream.cancel()
    good = watching.resume_token
    number = base64.urlsafe_b64decode(good)[16:]
    assert number.isdigit(), "a position is all that it holds"
    for forged in (
        "0",
        number.decode(),
        good[:-4],
        base64.urlsafe_b64encode(base64.urlsafe_b64decode(good)[:16] + b"0").decode(),
        _page(admin).next_page_token,
    ):
        request = users_pb.WatchUsersRequest(resume_token=forged)
        assert admin.refused("WatchUsers", request).told == (
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "resume_token",
        )
