"""Each change has one line in the audit log: what was done, to which user, by which caller."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from services.partners import PARTNER, namesake
from services.people import Person, fresh, newcomer, rows, update_request

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceServicer
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceServicer
from support.house import PASSWORD, House

Line = dict[str, Any]
NEW = "another horse, another battery"

READS = {
    "GetUser",
    "ListUsers",
    "WatchUsers",
    "ListSessions",
    "WhoAmI",
    "GetKeySet",
    "Introspect",
}


class Scene:
    """An administrator, a user, and the user's session and token."""

    def __init__(self, house: House, admin: Person) -> None:
        self.house = house
        self.admin = admin
        self.user = newcomer(house, admin.tokens.access_token, called="user")
        self.other = self.user.log_in()
        request = tokens_pb.ListSessionsRequest(parent=self.user.resource)
        self.session, self.other_session = (
            one.name.rpartition("/")[2] for one in self.user.do("ListSessions", request).sessions
        )
        self.token_id = self.user.me().token.token_id
        self.workload = Person(house, "workload", house.client("workload"))

    @property
    def by_admin(self) -> Line:
        return {"by": "users/admin"} | self._by(self.admin)

    @property
    def by_user(self) -> Line:
        return {"by": self.user.resource} | self._by(self.user)

    def without_token(self, person: Person) -> Line:
        return {"peer": f"spiffe://example.org/client/{person.name}"}

    def _by(self, person: Person) -> Line:
        return {"by_issuer": self.house.config.tokens.issuer} | self.without_token(person)


def _create(scene: Scene) -> Line:
    name = fresh("new")
    scene.admin.create(name, "initial " + uuid.uuid4().hex, roles=["clerk", "auditor"])
    return {
        "event": "user created",
        "user": name,
        "roles": ("auditor", "clerk"),
        **scene.by_admin,
    }


def _import(scene: Scene) -> Line:
    name = fresh("row")
    request = users_pb.CreateUserRequest(user_id=name, user=users_pb.User(roles=["clerk"]))
    bad = users_pb.CreateUserRequest(user_id="Not a name")
    scene.admin.do("ImportUsers", rows(bad, request, request))
    return {"event": "user created", "user": name, "roles": ("clerk",), **scene.by_admin}


def _update(scene: Scene) -> Line:
    scene.user.update(scene.user.name, ["email"], email="a@example.com")
    return {"event": "user changed", "user": scene.user.name, "fields": ["email"], **scene.by_user}


def _update_another(scene: Scene) -> Line:
    state = users_pb.User.STATE_DISABLED
    scene.admin.do("UpdateUser", update_request(scene.user.name, ["state", "roles"], state=state))
    return {
        "event": "user changed",
        "user": scene.user.name,
        "fields": ["roles", "state"],
        **scene.by_admin,
    }


def _delete(scene: Scene) -> Line:
    scene.admin.do("DeleteUser", users_pb.DeleteUserRequest(name=scene.user.resource))
    return {"event": "user deleted", "user": scene.user.name, **scene.by_admin}


def _change_password(scene: Scene) -> Line:
    request = users_pb.ChangePasswordRequest(
        name=scene.user.resource, current_password=PASSWORD, new_password=NEW
    )
    scene.user.do("ChangePassword", request)
    return {"event": "password changed", "user": scene.user.name, "ended": 1, **scene.by_user}


def _log_in(scene: Scene) -> Line:
    token = scene.user.log_in().access_token
    request = tokens_pb.ListSessionsRequest(parent=scene.user.resource)
    (mine,) = [one for one in scene.user.do("ListSessions", request, token).sessions if one.current]
    return {
        "event": "logged in",
        "user": scene.user.name,
        "session": mine.name.rpartition("/")[2],
        **scene.without_token(scene.user),
    }


def _refresh(scene: Scene) -> Line:
    scene.user.refresh(scene.other)
    return {
        "event": "session renewed",
        "user": scene.user.name,
        "session": scene.other_session,
        **scene.without_token(scene.user),
    }


def _issue(scene: Scene) -> Line:
    token = scene.workload.do("IssueToken", tokens_pb.IssueTokenRequest(), "").access_token
    return {
        "event": "token issued",
        "subject": "spiffe://example.org/client/workload",
        "issuer": scene.house.config.tokens.issuer,
        "jti": scene.workload.me(token).token.token_id,
        "scopes": ["read"],
        **scene.without_token(scene.workload),
    }


def _log_out(scene: Scene) -> Line:
    scene.user.do("Logout", tokens_pb.LogoutRequest())
    return {
        "event": "logged out",
        "subject": scene.user.resource,
        "issuer": scene.house.config.tokens.issuer,
        "jti": scene.token_id,
        "session": scene.session,
        **scene.by_user,
    }


def _revoke_token(scene: Scene) -> Line:
    token = scene.user.tokens.access_token
    scene.admin.do("RevokeToken", tokens_pb.RevokeTokenRequest(token=token))
    return {
        "event": "token revoked",
        "subject": scene.user.resource,
        "issuer": scene.house.config.tokens.issuer,
        "jti": scene.token_id,
        **scene.by_admin,
    }


def _revoke_token_id(scene: Scene) -> Line:
    scene.user.do("RevokeToken", tokens_pb.RevokeTokenRequest(token_id=scene.token_id))
    return {
        "event": "token revoked",
        "issuer": scene.house.config.tokens.issuer,
        "jti": scene.token_id,
        **scene.by_user,
    }


def _revoke_session(scene: Scene) -> Line:
    name = f"users/-/sessions/{scene.other_session}"
    scene.admin.do("RevokeSession", tokens_pb.RevokeSessionRequest(name=name))
    return {
        "event": "session revoked",
        "user": scene.user.name,
        "session": scene.other_session,
        **scene.by_admin,
    }


def _revoke_others(scene: Scene) -> Line:
    scene.user.do("RevokeOtherSessions", tokens_pb.RevokeOtherSessionsRequest())
    return {
        "event": "other sessions revoked",
        "user": scene.user.name,
        "session": scene.session,
        "ended": 1,
        **scene.by_user,
    }


def _revoke_user(scene: Scene) -> Line:
    scene.admin.do("RevokeUser", tokens_pb.RevokeUserRequest(name=scene.user.resource))
    return {"event": "user revoked", "user": scene.user.name, "ended": 2, **scene.by_admin}


def _revoke_client(scene: Scene) -> Line:
    client = f"spiffe://example.org/client/{scene.user.name}"
    scene.admin.do("RevokeClient", tokens_pb.RevokeClientRequest(client_id=client))
    return {"event": "client revoked", "client": client, "ended": 2, **scene.by_admin}


CHANGES: dict[str, list[Callable[[Scene], Line]]] = {
    "CreateUser": [_create],
    "ImportUsers": [_import],
    "UpdateUser": [_update, _update_another],
    "DeleteUser": [_delete],
    "ChangePassword": [_change_password],
    "Login": [_log_in],
    "Refresh": [_refresh],
    "IssueToken": [_issue],
    "Logout": [_log_out],
    "RevokeToken": [_revoke_token, _revoke_token_id],
    "RevokeSession": [_revoke_session],
    "RevokeOtherSessions": [_revoke_others],
    "RevokeUser": [_revoke_user],
    "RevokeClient": [_revoke_client],
}


@pytest.fixture
def scene(permissive: House, permissive_admin: Person) -> Scene:
    return Scene(permissive, permissive_admin)


def written(log: list[Line]) -> list[Line]:
    """The lines of the audit log, without their level."""
    lines = [line for line in log if line.get("logger") == "secure_server.audit"]
    return [{k: v for k, v in line.items() if k not in {"log_level", "logger"}} for line in lines]


@pytest.mark.parametrize(
    "change", [each for changes in CHANGES.values() for each in changes], ids=lambda c: c.__name__
)
def test_a_change_is_written_down_once_with_who_what_and_by_whom(
    scene: Scene, log: list[Line], change: Callable[[Scene], Line]
) -> None:
    log.clear()
    expected = change(scene)
    assert written(log) == [expected]


def test_every_method_that_is_no_read_is_among_them() -> None:
    methods = {
        name
        for servicer in (UserServiceServicer, TokenServiceServicer)
        for name in vars(servicer)
        if name[0].isupper()
    }
    assert methods == READS | set(CHANGES)


def test_of_two_issuers_administrators_of_one_name_the_line_says_which(
    permissive: House, permissive_admin: Person, log: list[Line]
) -> None:
    name = fresh("new")
    partner = namesake(permissive, permissive_admin, "admin")
    log.clear()
    permissive_admin.create(name)
    partner.do("DeleteUser", users_pb.DeleteUserRequest(name=f"users/{name}"))
    created, deleted = written(log)
    assert (created["by"], deleted["by"]) == ("users/admin", "users/admin")
    assert created["by_issuer"] == permissive.config.tokens.issuer
    assert deleted["by_issuer"] == PARTNER


def test_what_was_refused_or_failed_is_not_written_down_as_done(
    permissive_admin: Person, scene: Scene, log: list[Line]
) -> None:
    log.clear()
    gone = users_pb.DeleteUserRequest(name=f"users/{fresh('missing')}")
    stale = users_pb.DeleteUserRequest(name=scene.user.resource, etag="stale")
    wrong = users_pb.ChangePasswordRequest(
        name=scene.user.resource, current_password=NEW, new_password=PASSWORD
    )
    permissive_admin.refused("DeleteUser", gone)
    permissive_admin.refused("DeleteUser", stale)
    permissive_admin.refused("UpdateUser", update_request(fresh("missing"), ["email"]))
    permissive_admin.refused("CreateUser", users_pb.CreateUserRequest(user_id="Not a name"))
    scene.user.refused("ChangePassword", wrong)
    scene.user.refused("DeleteUser", users_pb.DeleteUserRequest(name="users/admin"))
    done = {"user deleted", "user changed", "user created", "password changed"}
    assert not done & {line["event"] for line in log}
