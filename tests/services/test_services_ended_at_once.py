"""U19: what a method has ended is refused by this server at the very next call.

The tailer's thread does not look at the database here, so the transaction that ended something must
itself have told of it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from services.people import Person, administrator, newcomer, outcome, update_request, without_tailer

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from support.house import PASSWORD, House

End = Callable[[Person, Person], object]
"""Ends the access token that a user holds; takes the administrator and the user."""

_SERVICES = (
    users_pb.DESCRIPTOR.services_by_name["UserService"],
    pb.DESCRIPTOR.services_by_name["TokenService"],
)

_ENDS_NOTHING = {
    "CreateUser",
    "GetUser",
    "ListUsers",
    "ImportUsers",
    "WatchUsers",
    "Login",
    "IssueToken",
    "WhoAmI",
    "GetKeySet",
    "Introspect",
    "ListSessions",
}


def _session(user: Person) -> str:
    (session,) = user.do("ListSessions", pb.ListSessionsRequest(parent=user.resource)).sessions
    return session.name


def _revoke_others(_admin: Person, user: Person) -> None:
    other = user.log_in().access_token
    user.do("RevokeOtherSessions", pb.RevokeOtherSessionsRequest(), other)


def _change_password(_admin: Person, user: Person) -> None:
    request = users_pb.ChangePasswordRequest(
        name=user.resource, current_password=PASSWORD, new_password=PASSWORD + "!"
    )
    user.do("ChangePassword", request, user.log_in().access_token)


def _refresh_twice(_admin: Person, user: Person) -> None:
    user.refresh(user.refresh(user.tokens))
    outcome(user.refresh, user.tokens)


def _refresh_with_another_certificate(admin: Person, user: Person) -> None:
    outcome(admin.refresh, user.tokens)


ENDS: list[tuple[str, End]] = [
    ("Logout", lambda _, user: user.do("Logout", pb.LogoutRequest())),
    (
        "RevokeToken",
        lambda _, user: user.do(
            "RevokeToken", pb.RevokeTokenRequest(token=user.tokens.access_token)
        ),
    ),
    (
        "RevokeToken",
        lambda _, user: user.do(
            "RevokeToken", pb.RevokeTokenRequest(token=user.tokens.refresh_token)
        ),
    ),
    (
        "RevokeToken",
        lambda admin, user: admin.do(
            "RevokeToken", pb.RevokeTokenRequest(token_id=user.me().token.token_id)
        ),
    ),
    (
        "RevokeSession",
        lambda admin, user: admin.do("RevokeSession", pb.RevokeSessionRequest(name=_session(user))),
    ),
    ("RevokeOtherSessions", _revoke_others),
    (
        "RevokeUser",
        lambda admin, user: admin.do("RevokeUser", pb.RevokeUserRequest(name=user.resource)),
    ),
    (
        "RevokeClient",
        lambda admin, user: admin.do(
            "RevokeClient", pb.RevokeClientRequest(client_id=user.me().token.client_id)
        ),
    ),
    ("Refresh", _refresh_twice),
    ("Refresh", _refresh_with_another_certificate),
    (
        "UpdateUser",
        lambda admin, user: admin.do(
            "UpdateUser",
            update_request(user.name, ["state"], state=users_pb.User.STATE_DISABLED),
        ),
    ),
    (
        "UpdateUser",
        lambda admin, user: admin.do(
            "UpdateUser", update_request(user.name, ["roles"], roles=["more"])
        ),
    ),
    (
        "DeleteUser",
        lambda admin, user: admin.do("DeleteUser", users_pb.DeleteUserRequest(name=user.resource)),
    ),
    ("ChangePassword", _change_password),
]


@pytest.fixture
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


def test_every_method_is_here_that_can_end_something() -> None:
    methods = {method.name for service in _SERVICES for method in service.methods}
    assert methods == _ENDS_NOTHING | {method for method, _ in ENDS}


@pytest.mark.parametrize(("method", "end"), ENDS, ids=[method for method, _ in ENDS])
def test_u19_what_a_method_ends_is_refused_at_the_next_call(
    house: House,
    admin_token: str,
    admin: Person,
    method: str,
    end: End,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_tailer(monkeypatch)
    user = newcomer(house, admin_token)
    held = user.tokens.access_token
    assert user.is_known(held)
    end(admin, user)
    assert not user.is_known(held), method


def test_u19_a_workloads_token_is_refused_at_the_next_call_after_its_log_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to no session: it is revoked by its own ID."""
    without_tailer(monkeypatch)
    workload = Person(house, "workload", house.client("workload"))
    held = workload.do("IssueToken", pb.IssueTokenRequest(), "").access_token
    assert workload.is_known(held)
    workload.do("Logout", pb.LogoutRequest(), held)
    assert not workload.is_known(held)
