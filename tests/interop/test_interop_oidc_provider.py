"""A certified OpenID provider as the issuer, beside our own tokens, API keys and certificates."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_server.auth.api_keys import make_api_key
from secure_tls.authority import Authority
from support.door import wait_until
from support.house import Client, House, bearer, running_house
from support.oidc_provider import OidcProvider, missing, running_oidc_provider

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

POLICY = """{"name": "all", "allow_rules": [
  {"name": "open", "request": {"paths": ["/secure_api.tokens.v1.TokenService/Login"]}},
  {"name": "known", "source": {"request_principals": ["*"]}},
  {"name": "admins", "source": {"roles": ["admin"]}}
]}"""
SETTINGS = """
[policy]
file = "policy.json"
[[workloads]]
spiffe_id = "spiffe://example.org/client/workload"
scopes = ["introspect"]
[[authenticators]]
type = "jwt"
[[authenticators]]
type = "certificate"
[[authenticators]]
type = "api_key"
file = "api-keys.toml"
[[authenticators]]
type = "oidc"
profile = "rfc9068"
issuer = "{issuer}"
audience = "users-api"
roles_claim = "groups"
roles = {{ "team-a-admins" = "admin" }}
ca = "{ca}"
allow_private_addresses = true
[[authenticators]]
type = "introspection"
endpoint = "{issuer}/token/introspection"
issuer = "{issuer}"
audience = "users-api"
client_id = "{client_id}"
client_secret_file = "secret"
cache = 1
roles_claim = "groups"
roles = {{ "team-a-admins" = "operator" }}
ca = "{ca}"
allow_private_addresses = true
"""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("example.org")


@pytest.fixture(scope="module")
def provider(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[OidcProvider]:
    with running_oidc_provider(tmp_path_factory.mktemp("provider"), authority) as provider:
        yield provider


@pytest.fixture(scope="module")
def api_key() -> tuple[str, str]:
    expires = datetime.now(UTC) + timedelta(days=1)
    return make_api_key("ci", scopes=("read",), roles=(), expires=expires)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    provider: OidcProvider,
    api_key: tuple[str, str],
) -> Iterator[House]:
    root = tmp_path_factory.mktemp("server")
    (root / "policy.json").write_text(POLICY)
    (root / "api-keys.toml").write_text(api_key[1])
    (root / "secret").touch(mode=0o600)
    (root / "secret").write_text(provider.introspection_secret)
    settings = SETTINGS.format(
        issuer=provider.issuer, ca=provider.ca_file, client_id=provider.introspection_client_id
    )
    with running_house(root, settings, authority=authority) as house:
        yield house


@pytest.fixture(scope="module")
def own_token(server: House) -> str:
    return server.first_log_in().access_token


def who(house: House, token: str | None, client: Client | None = None) -> Any:
    """Return the caller that the server recognises, or the status."""
    stub = TokenServiceStub(house.channel(client or house.admin))
    try:
        answer = stub.WhoAmI(
            pb.WhoAmIRequest(), metadata=() if token is None else bearer(token), timeout=20
        )
    except grpc.RpcError as error:
        return error.code().name
    return answer.token


def test_one_server_accepts_all_credentials_and_names_their_authenticator(
    server: House, provider: OidcProvider, api_key: tuple[str, str], own_token: str
) -> None:
    expected = {
        "jwt": (own_token, "users/admin", ["admin"]),
        "oidc": (provider.token("urn:jwt"), "service", ["admin"]),
        "introspection": (provider.token("urn:opaque"), "service", ["operator"]),
        "api_key": (api_key[0], "ci", []),
        "certificate": (None, "spiffe://example.org/client/admin", []),
    }
    for name, (token, subject, roles) in expected.items():
        token_info = who(server, token)
        assert (token_info.authenticator, token_info.subject) == (name, subject)
        assert list(token_info.roles) == roles
    assert who(server, provider.token("urn:es")).authenticator == "oidc"
    assert sorted(who(server, provider.token("urn:jwt", scope="read write")).scopes) == [
        "read",
        "write",
    ]


def test_a_bound_token_is_good_over_its_own_certificate_only(
    server: House, provider: OidcProvider
) -> None:
    mine, theirs = server.client("mine"), server.client("theirs")
    for resource in ("urn:jwt", "urn:opaque"):
        token = provider.token(resource, client="bound", certificate=mine.issued)
        assert who(server, token, mine).subject == "bound"
        assert who(server, token, theirs) == "UNAUTHENTICATED"


def test_a_revoked_opaque_token_ends_with_its_answer(server: House, provider: OidcProvider) -> None:
    token = provider.token("urn:opaque")
    assert who(server, token).subject == "service"
    provider.revoke(token)
    wait_until(lambda: who(server, token) == "UNAUTHENTICATED")


def test_keys_are_rotated_while_calls_run_and_none_fails(
    server: House, provider: OidcProvider
) -> None:
    over, answers = threading.Event(), []

    def calls() -> None:
        while not over.is_set():
            answers.append(who(server, provider.token("urn:jwt")))

    callers = [threading.Thread(target=calls) for _ in range(2)]
    old = provider.token("urn:jwt")
    for caller in callers:
        caller.start()
    try:
        wait_until(lambda: len(answers) >= 5)
        provider.rotate()
        seen = len(answers)
        wait_until(lambda: len(answers) >= seen + 10)
    finally:
        over.set()
        for caller in callers:
            caller.join()
    assert [answer for answer in answers if isinstance(answer, str)] == []
    assert who(server, old).subject == "service", "the old key is still published"


def test_known_keys_still_verify_while_the_provider_is_down(
    server: House, provider: OidcProvider
) -> None:
    token, opaque = provider.token("urn:jwt"), provider.token("urn:opaque")
    other = provider.token("urn:jwt")
    assert who(server, token).subject == "service"
    provider.kill()
    try:
        assert who(server, token).subject == "service"
        assert who(server, other).subject == "service", "a token that was not seen before"
        assert who(server, opaque) == "UNAVAILABLE"
    finally:
        provider.restart()
    assert who(server, provider.token("urn:jwt")).subject == "service"
