"""The own-record rule by itself: the policy allows everything, and still no user reaches another.

Every method with the rule is called by every kind of caller that the rule is for. The partner's
namesake has the same ``sub``, ``jti`` and ``sid`` as the user: a principal is (issuer, subject), so
the names that another issuer chooses give its tokens no rights over users of this server.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from services.partners import PARTNER, namesake, partners_token
from services.people import Person, fresh, newcomer, outcome, update_request

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from support.house import PASSWORD, House

NOT_ALLOWED = ("PERMISSION_DENIED", "NOT_ALLOWED", "")
NEW = "another horse, another battery"


@dataclass(frozen=True)
class Facts:
    """All identifiers of a user, as a colleague or a partner may learn them."""

    person: Person
    session: str
    token_id: str

    @property
    def name(self) -> str:
        return self.person.name

    @property
    def session_id(self) -> str:
        return self.session.rpartition("/")[2]


@pytest.fixture(scope="module")
def victim(permissive: House, permissive_admin: Person) -> Facts:
    """The user whose record these tests attack and must not change."""
    person = newcomer(permissive, permissive_admin.tokens.access_token, called="victim")
    request = tokens_pb.ListSessionsRequest(parent=person.resource)
    (session,) = person.do("ListSessions", request).sessions
    return Facts(person, session.name, person.me().token.token_id)


@pytest.fixture(scope="module")
def callers(permissive: House, permissive_admin: Person, victim: Facts) -> dict[str, Person]:
    bob = newcomer(permissive, permissive_admin.tokens.access_token, "clerk", called="bob")
    stranger = Person(permissive, "stranger", permissive.client("stranger"))
    hers = {"token_id": victim.token_id, "session_id": victim.session_id}
    return {
        "another user": bob,
        "a namesake of the partner's": namesake(permissive, victim.person, **hers),
        "a namesake with roles": namesake(permissive, victim.person, "clerk", "owner", **hers),
        "a caller without a token": stranger,
    }


# By method: a request that the owner could make, of the victim. Those which the owner may not make
# either are further below.
HERS: dict[str, Callable[[Facts], tuple[str, Any]]] = {
    "get": lambda v: ("GetUser", users_pb.GetUserRequest(name=v.person.resource)),
    "update": lambda v: ("UpdateUser", update_request(v.name, ["email"], email="x@example.com")),
    "update roles": lambda v: ("UpdateUser", update_request(v.name, ["roles"], roles=["admin"])),
    "update nothing": lambda v: ("UpdateUser", update_request(v.name, [])),
    "delete": lambda v: ("DeleteUser", users_pb.DeleteUserRequest(name=v.person.resource)),
    "change password": lambda v: (
        "ChangePassword",
        users_pb.ChangePasswordRequest(
            name=v.person.resource, current_password=PASSWORD, new_password=NEW
        ),
    ),
    "list sessions": lambda v: (
        "ListSessions",
        tokens_pb.ListSessionsRequest(parent=v.person.resource),
    ),
    "revoke session": lambda v: (
        "RevokeSession",
        tokens_pb.RevokeSessionRequest(name=v.session),
    ),
    "revoke token": lambda v: (
        "RevokeToken",
        tokens_pb.RevokeTokenRequest(token=v.person.tokens.access_token),
    ),
    "revoke token id": lambda v: (
        "RevokeToken",
        tokens_pb.RevokeTokenRequest(token_id=v.token_id),
    ),
    "revoke user": lambda v: (
        "RevokeUser",
        tokens_pb.RevokeUserRequest(name=v.person.resource),
    ),
    "revoke client": lambda v: (
        "RevokeClient",
        tokens_pb.RevokeClientRequest(client_id=f"spiffe://example.org/client/{v.name}"),
    ),
    "issue token": lambda _: ("IssueToken", tokens_pb.IssueTokenRequest()),
    "create an administrator": lambda _: (
        "CreateUser",
        users_pb.CreateUserRequest(user_id=fresh("root"), user=users_pb.User(roles=["admin"])),
    ),
}

CALLERS = [
    "another user",
    "a namesake of the partner's",
    "a namesake with roles",
    "a caller without a token",
]


def state_of(victim: Facts) -> tuple[users_pb.User, list[str]]:
    """The state that must not change: the victim's record, session, token and password."""
    person = victim.person
    request = tokens_pb.ListSessionsRequest(parent=person.resource)
    sessions = person.do("ListSessions", request).sessions
    return person.get(), [f"{one.name} {one.current}" for one in sessions]


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("what", HERS)
def test_U20_where_policy_allows_everything_a_user_still_reaches_no_other(
    victim: Facts, callers: dict[str, Person], what: str, who: str
) -> None:
    before = state_of(victim)
    method, request = HERS[what](victim)
    assert callers[who].refused(method, request).told == NOT_ALLOWED
    assert state_of(victim) == before


@pytest.mark.parametrize("who", CALLERS)
def test_U20_a_session_named_by_its_id_alone_is_its_owners(
    victim: Facts, callers: dict[str, Person], who: str
) -> None:
    """Another user's session gets the same answer as an ID that does not exist."""
    before = state_of(victim)
    told = {
        callers[who].refused(
            "RevokeSession", tokens_pb.RevokeSessionRequest(name=f"users/-/sessions/{session}")
        )
        for session in (victim.session_id, uuid.uuid4())
    }
    assert [refusal.told for refusal in told] == [("NOT_FOUND", "SESSION_NOT_FOUND", "")]
    assert state_of(victim) == before


@pytest.mark.parametrize("who", [who for who in CALLERS if who != "another user"])
def test_who_has_no_session_of_ours_has_no_others_to_end(
    victim: Facts, callers: dict[str, Person], who: str
) -> None:
    """Not even where a partner's token names a session of a user of this server."""
    before = state_of(victim)
    refusal = callers[who].refused("RevokeOtherSessions", tokens_pb.RevokeOtherSessionsRequest())
    assert refusal.told == ("FAILED_PRECONDITION", "NO_SESSION", "")
    assert state_of(victim) == before


def test_a_token_of_a_user_without_a_session_ends_no_sessions_as_the_others(
    permissive: House, victim: Facts
) -> None:
    """Without a session to keep, all would end; ``RevokeUser`` is the method for that."""
    before = state_of(victim)
    claims = {"sub": victim.person.resource, "roles": []}
    token = permissive.forge.token(victim.person.client.thumbprint, **claims)
    assert victim.person.is_known(token)
    refusal = victim.person.refused(
        "RevokeOtherSessions", tokens_pb.RevokeOtherSessionsRequest(), token
    )
    assert refusal.told == ("FAILED_PRECONDITION", "NO_SESSION", "")
    assert state_of(victim) == before


@pytest.mark.parametrize("method", ["UpdateUser", "DeleteUser", "ChangePassword", "ListSessions"])
def test_an_administrators_namesake_is_no_administrator(
    permissive: House, permissive_admin: Person, victim: Facts, method: str
) -> None:
    """Only the role counts, and the partner's user has none."""
    other = namesake(permissive, permissive_admin)
    for person in (permissive_admin, victim.person):
        request = {
            "UpdateUser": update_request(person.name, ["email"], email="x@example.com"),
            "DeleteUser": users_pb.DeleteUserRequest(name=person.resource),
            "ChangePassword": users_pb.ChangePasswordRequest(
                name=person.resource, current_password=PASSWORD, new_password=NEW
            ),
            "ListSessions": tokens_pb.ListSessionsRequest(parent=person.resource),
        }[method]
        assert other.refused(method, request).told == NOT_ALLOWED


def test_a_password_is_its_owners_alone_whatever_the_roles(
    permissive: House, permissive_admin: Person, victim: Facts
) -> None:
    request = users_pb.ChangePasswordRequest(
        name=victim.person.resource, current_password=PASSWORD, new_password=NEW
    )
    for person in (permissive_admin, namesake(permissive, victim.person, "admin")):
        assert person.refused("ChangePassword", request).told == NOT_ALLOWED
    assert victim.person.log_in().access_token


def test_no_session_is_current_in_a_partners_call_of_the_same_session_id(
    permissive: House, victim: Facts
) -> None:
    """The partner's administrator may list them; the ``sid`` of its token is no session here."""
    request = tokens_pb.ListSessionsRequest(parent=victim.person.resource)
    assert [one.current for one in victim.person.do("ListSessions", request).sessions][:1] == [True]
    foreign = namesake(permissive, victim.person, "admin", session_id=victim.session_id)
    assert foreign.me().token.issuer == PARTNER
    seen = foreign.do("ListSessions", request).sessions
    assert victim.session in {one.name for one in seen}
    assert not any(one.current for one in seen)


def test_a_session_is_only_found_under_its_own_user(
    permissive: House, permissive_admin: Person, victim: Facts, callers: dict[str, Person]
) -> None:
    """Administrators may end every session, by its full name only."""
    before, bob = state_of(victim), callers["another user"]
    for user in (bob.resource, permissive_admin.resource, f"users/{fresh('missing')}"):
        request = tokens_pb.RevokeSessionRequest(name=f"{user}/sessions/{victim.session_id}")
        refusal = permissive_admin.refused("RevokeSession", request)
        assert refusal.told == ("NOT_FOUND", "SESSION_NOT_FOUND", "")
    assert state_of(victim) == before


def test_who_is_no_administrator_imports_none(
    permissive_admin: Person, callers: dict[str, Person]
) -> None:
    """A policy may allow every caller to import plain users; the rows before the refusal stay."""
    plain, root, rest = fresh("plain"), fresh("root"), fresh("rest")
    requests = [
        users_pb.ImportUsersRequest(row=users_pb.CreateUserRequest(user_id=plain)),
        users_pb.ImportUsersRequest(
            row=users_pb.CreateUserRequest(
                user_id=root, user=users_pb.User(roles=["clerk", "admin"])
            )
        ),
        users_pb.ImportUsersRequest(row=users_pb.CreateUserRequest(user_id=rest)),
    ]
    refusal = callers["another user"].refused("ImportUsers", iter(requests))
    assert refusal.told == NOT_ALLOWED
    assert permissive_admin.get(f"users/{plain}").name == f"users/{plain}"
    for name in (root, rest):
        answer = outcome(permissive_admin.get, f"users/{name}")
        assert answer.told == ("NOT_FOUND", "USER_NOT_FOUND", "")


def test_a_partners_token_is_no_token_of_ours(permissive: House, permissive_admin: Person) -> None:
    """``Introspect`` calls only tokens of this server active, for every caller and every text."""
    texts = [partners_token("users/admin", "admin", token_id="x"), "vouched_", "vouched_!"]
    requests = [tokens_pb.IntrospectRequest(token=text) for text in texts]
    answers = permissive_admin.do("Introspect", iter(requests))
    assert [answer.active for answer in answers] == [False] * len(texts)
