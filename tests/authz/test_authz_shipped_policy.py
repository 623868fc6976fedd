"""The policy file that comes with the identity service."""

from importlib import resources

import pytest
from a43_values import a_principal

from secure_server.auth.principal import ANONYMOUS
from secure_server.authz import Policy

_TOKENS = "/secure_api.tokens.v1.TokenService/"
_USERS = "/secure_api.users.v1.UserService/"
_PUBLIC = [
    *(_TOKENS + name for name in ("Login", "Refresh", "IssueToken", "GetKeySet")),
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
]
_OWN = (
    *("WhoAmI", "Logout", "RevokeToken"),
    *("ListSessions", "RevokeSession", "RevokeOtherSessions", "RevokeUser"),
)
_AUTHENTICATED = [
    *(_TOKENS + name for name in _OWN),
    *(_USERS + name for name in ("GetUser", "UpdateUser", "ChangePassword")),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
_INTROSPECT = _TOKENS + "Introspect"
_ADMIN = [
    *(_USERS + n for n in ("CreateUser", "ListUsers", "DeleteUser", "ImportUsers", "WatchUsers")),
    _TOKENS + "RevokeClient",
    _INTROSPECT,
]
_ALL = [*_PUBLIC, *_AUTHENTICATED, *_ADMIN]

_USER = a_principal()
_ADMINISTRATOR = a_principal("root", roles=frozenset({"admin"}))
_GATEWAY = a_principal("gateway", scopes=frozenset({"introspect"}))


@pytest.fixture(scope="module")
def policy():
    text = resources.files("secure_server").joinpath("policy.json").read_text(encoding="utf-8")
    return Policy.parse(text, origin="policy.json")


@pytest.mark.parametrize("method", _ALL)
@pytest.mark.parametrize(
    ("principal", "methods"),
    [
        (ANONYMOUS, _PUBLIC),
        (_USER, [*_PUBLIC, *_AUTHENTICATED]),
        (_ADMINISTRATOR, _ALL),
        (_GATEWAY, [*_PUBLIC, *_AUTHENTICATED, _INTROSPECT]),
    ],
    ids=["anonymous", "user", "admin", "gateway"],
)
def test_each_caller_may_call_exactly_its_methods(policy, method, principal, methods):
    decision = policy.decide(method, peer=None, principal=principal)
    assert decision.allowed is (method in methods)


def test_it_names_every_method_and_no_other(policy):
    assert all(policy.names(method) for method in _ALL)
    assert not policy.names(_USERS + "Unknown")
    assert not policy.names(_USERS + "CreateUser/")


def test_all_its_decisions_can_be_cached(policy):
    assert not any(policy.reads_headers(m) for m in _ALL)
