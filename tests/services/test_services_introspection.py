"""Introspect: which callers may ask, and the answer for each kind of token (RFC 7662)."""

import time

import pytest
from services.people import Person, administrator, newcomer

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from support.house import House


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


@pytest.fixture(scope="module")
def alice(house: House, admin_token: str) -> Person:
    return newcomer(house, admin_token, "auditor", called="alice")


@pytest.fixture(scope="module")
def workload(house: House) -> Person:
    return Person(house, "workload", house.client("workload"))


def issue(person: Person, *scopes: str) -> str:
    request = tokens_pb.IssueTokenRequest(scopes=scopes)
    return person.do("IssueToken", request, "").access_token


def introspect(
    person: Person, *tokens: str, by: str | None = None
) -> list[tokens_pb.IntrospectResponse]:
    requests = [
        tokens_pb.IntrospectRequest(correlation_id=str(number), token=token)
        for number, token in enumerate(tokens)
    ]
    answers = list(person.do("Introspect", iter(requests), by))
    assert [answer.correlation_id for answer in answers] == [r.correlation_id for r in requests]
    return answers


def test_a_live_token_is_described_as_its_bearer_is_known(
    admin: Person, alice: Person, workload: Person
) -> None:
    issued = issue(workload)
    for person, token, answer in zip(
        (alice, workload),
        (alice.tokens.access_token, issued),
        introspect(admin, alice.tokens.access_token, issued),
        strict=True,
    ):
        me = person.me(token)
        assert answer.active
        assert answer.thumbprint == me.certificate.thumbprint
        for field in ("subject", "issuer", "client_id", "scopes", "roles", "token_id"):
            assert getattr(answer, field) == getattr(me.token, field), field
        assert answer.expire_time == me.token.expire_time


def test_of_any_other_token_nothing_is_said_but_that(
    house: House, admin: Person, alice: Person, workload: Person
) -> None:
    """Expired, foreign, forged, revoked, of an ended session, garbage; the stream goes on."""
    ended, revoked, now = alice.log_in(), issue(workload), int(time.time())
    assert [a.active for a in introspect(admin, ended.access_token, revoked)] == [True, True]
    alice.do("Logout", tokens_pb.LogoutRequest(), ended.access_token)
    admin.do("RevokeToken", tokens_pb.RevokeTokenRequest(token=revoked))
    answers = introspect(
        admin,
        "",
        "garbage",
        "a.b.c",
        "x" * 1_000_000,
        alice.tokens.refresh_token,
        house.forge.token("x", iat=now - 700, exp=now - 100),
        house.forge.token("x", iss="https://elsewhere.example"),
        house.forge.token("x", aud="elsewhere"),
        alice.tokens.access_token[:-8] + "AAAAAAAA",
        ended.access_token,
        revoked,
        alice.tokens.access_token,
    )
    assert answers.pop().active
    for number, answer in enumerate(answers):
        assert answer == tokens_pb.IntrospectResponse(correlation_id=str(number))


def test_a_role_or_a_scope_is_needed(alice: Person, workload: Person) -> None:
    """The scope of the call's token counts, not a scope that its owner could ask for."""
    token = alice.tokens.access_token
    assert introspect(workload, token, by=issue(workload, "introspect"))[0].active
    for person, by in ((alice, None), (workload, issue(workload, "other"))):
        refusal = person.refused("Introspect", iter([tokens_pb.IntrospectRequest()]), by)
        assert refusal.told == ("PERMISSION_DENIED", "NOT_ALLOWED", "")
    refusal = alice.refused("Introspect", iter([tokens_pb.IntrospectRequest()]), "")
    assert refusal.told == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED", "")


@pytest.mark.parametrize("text", ["x" * 64, "é" * 32, "", "a\nb\0"])
def test_a_correlation_id_of_64_bytes_comes_back(admin: Person, text: str) -> None:
    request = tokens_pb.IntrospectRequest(correlation_id=text, token="x")
    assert [answer.correlation_id for answer in admin.do("Introspect", iter([request]))] == [text]


@pytest.mark.parametrize("text", ["x" * 65, "é" * 33])
def test_a_correlation_id_of_65_bytes_is_invalid(admin: Person, text: str) -> None:
    request = tokens_pb.IntrospectRequest(correlation_id=text, token="x")
    assert admin.refused("Introspect", iter([request])).told == (
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "correlation_id",
    )
