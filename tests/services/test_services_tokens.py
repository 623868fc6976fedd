"""The contract of TokenService, except Introspect."""

import base64
import time
import uuid

import grpc
import jwt
import pytest
from google.protobuf.json_format import MessageToDict
from services.people import Person, administrator, fresh, newcomer, refused

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_tls.peer import parse_peer
from support.house import DEADLINE, PASSWORD, House

NOT_ALLOWED = ("PERMISSION_DENIED", "NOT_ALLOWED", "")
REFUSED = ("UNAUTHENTICATED", "CREDENTIALS_REFUSED", "")


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


@pytest.fixture(scope="module")
def alice(house: House, admin_token: str) -> Person:
    return newcomer(house, admin_token, "auditor", "clerk", called="alice")


@pytest.fixture(scope="module")
def workload(house: House) -> Person:
    person = Person(house, "workload", house.client("workload"))
    person.tokens = issue(person)
    return person


def issue(person: Person, *scopes: str) -> tokens_pb.Tokens:
    return person.do("IssueToken", tokens_pb.IssueTokenRequest(scopes=scopes), "")


def revoke(person: Person, token: str) -> None:
    person.do("RevokeToken", tokens_pb.RevokeTokenRequest(token=token))


def test_a_log_in_gives_what_the_contract_says(alice: Person) -> None:
    """A JWT for 10 minutes, and 256 random bits as base64url for 7 days."""
    now, tokens = time.time(), alice.log_in()
    assert tokens.access_token.count(".") == 2
    assert tokens.access_token_expire_time.seconds == pytest.approx(now + 600, abs=30)
    assert len(base64.urlsafe_b64decode(tokens.refresh_token + "=")) == 32
    assert "=" not in tokens.refresh_token
    assert tokens.refresh_token_expire_time.seconds == pytest.approx(now + 7 * 86400, abs=30)
    again = alice.log_in()
    assert not {again.access_token, again.refresh_token} & {
        tokens.access_token,
        tokens.refresh_token,
    }


def test_an_initial_password_opens_nothing_until_it_is_replaced(
    house: House, admin: Person
) -> None:
    name, initial = fresh("first"), uuid.uuid4().hex
    admin.create(name, initial)
    person = Person(house, name, house.client(name))
    required = ("FAILED_PRECONDITION", "PASSWORD_CHANGE_REQUIRED", "")
    assert refused(person.log_in, initial).told == required
    same = refused(person.log_in, initial, initial)
    assert same.told == ("INVALID_ARGUMENT", "INVALID_FIELD", "new_password")
    assert person.is_known(person.log_in(initial, PASSWORD).access_token)
    assert refused(person.log_in, initial, "some other password").told == REFUSED
    assert person.log_in(PASSWORD).access_token


def test_new_password_is_for_initial_passwords_only(alice: Person) -> None:
    refusal = refused(alice.log_in, PASSWORD, "some other password")
    assert refusal.told == ("INVALID_ARGUMENT", "INVALID_FIELD", "new_password")
    assert alice.log_in(PASSWORD).access_token


@pytest.mark.parametrize(
    "token", ["", "garbage", "A" * 43, "A" * 1_000_000, "\0" * 43, "é" * 43, "A" * 42 + "="]
)
def test_what_is_no_refresh_token_is_unauthenticated(alice: Person, token: str) -> None:
    assert refused(alice.refresh, token).told == REFUSED


def test_a_refresh_goes_on_with_the_same_user_and_roles(alice: Person) -> None:
    first = alice.log_in()
    before, after = alice.me(first.access_token), alice.me(alice.refresh(first).access_token)
    assert after.token.token_id != before.token.token_id
    after.token.token_id = before.token.token_id
    after.token.expire_time.CopyFrom(before.token.expire_time)
    assert after == before


def test_a_workload_gets_its_own_scopes_by_its_certificate_alone(workload: Person) -> None:
    """No session, so no refresh token."""
    now, tokens = time.time(), issue(workload)
    assert not tokens.refresh_token
    assert not tokens.HasField("refresh_token_expire_time")
    assert tokens.access_token_expire_time.seconds == pytest.approx(now + 600, abs=30)
    me = workload.me(tokens.access_token).token
    assert me.subject == "spiffe://example.org/client/workload"
    assert me.client_id == me.subject
    assert list(me.scopes) == ["introspect", "other"]
    assert not me.roles


def test_a_workload_may_ask_for_less(workload: Person) -> None:
    token = issue(workload, "other", "other").access_token
    assert list(workload.me(token).token.scopes) == ["other"]


@pytest.mark.parametrize("scope", ["admin", "", "Other", "other introspect", "introspect\n"])
def test_a_workload_gets_no_scope_that_is_not_granted_to_it(workload: Person, scope: str) -> None:
    assert refused(issue, workload, "other", scope).told == NOT_ALLOWED


def test_who_is_no_configured_workload_gets_no_token(admin: Person, alice: Person) -> None:
    """An administrator gets none either: roles belong to the user, not to the certificate."""
    for person in (admin, alice):
        assert refused(issue, person).told == NOT_ALLOWED
        request = tokens_pb.IssueTokenRequest()
        assert person.refused("IssueToken", request).told == NOT_ALLOWED


def test_a_bad_token_is_refused_even_where_none_is_needed(workload: Person) -> None:
    request = tokens_pb.IssueTokenRequest()
    assert workload.refused("IssueToken", request, "garbage").told == REFUSED


def test_a_caller_revokes_its_own_token_and_the_next_call_is_refused(alice: Person) -> None:
    """Only the token is revoked: the session's refresh token still works."""
    first = alice.log_in()
    second = alice.refresh(first)
    revoke(alice, first.access_token)
    assert not alice.is_known(first.access_token)
    assert alice.is_known(second.access_token)
    revoke(alice, first.access_token)
    assert alice.refresh(second).access_token


def test_a_caller_may_revoke_the_token_of_the_very_call(workload: Person) -> None:
    token = issue(workload).access_token
    workload.do("RevokeToken", tokens_pb.RevokeTokenRequest(token=token), token)
    assert not workload.is_known(token)


def test_another_spelling_of_a_token_revokes_the_token(alice: Person) -> None:
    """The signature (r, n-s) is valid like (r, s), so revocation is by the claim jti."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    token = alice.log_in().access_token
    text, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    twin_s = order - int.from_bytes(raw[32:])
    twin = base64.urlsafe_b64encode(raw[:32] + twin_s.to_bytes(32)).rstrip(b"=").decode()
    revoke(alice, f"{text}.{twin}")
    assert not alice.is_known(token)


def test_only_an_administrator_revokes_another_users_token(
    admin: Person, alice: Person, workload: Person
) -> None:
    token = issue(workload).access_token
    assert refused(revoke, alice, token).told == NOT_ALLOWED
    assert refused(revoke, alice, admin.tokens.access_token).told == NOT_ALLOWED
    assert refused(revoke, workload, alice.tokens.access_token).told == NOT_ALLOWED
    assert workload.is_known(token)
    assert alice.is_known(alice.tokens.access_token)
    revoke(admin, token)
    assert not workload.is_known(token)


def test_revoking_what_is_no_live_token_is_no_error(house: House, alice: Person) -> None:
    """RFC 7009, section 2.2; other users' expired tokens get the same answer."""
    now = int(time.time())
    for text in (
        "",
        "garbage",
        "a.b.c",
        "AAAA" + alice.tokens.refresh_token[4:],
        alice.tokens.access_token[:-4] + "AAAA",
        house.forge.token("x", iat=now - 700, exp=now - 100),
    ):
        revoke(alice, text)
    assert alice.is_known(alice.tokens.access_token)


def test_who_am_i_says_what_the_server_knows(house: House, alice: Person) -> None:
    peer = parse_peer(alice.client.issued.certificate_pem)
    claims = jwt.decode(alice.tokens.access_token, options={"verify_signature": False})
    spiffe_id = f"spiffe://example.org/client/{alice.name}"
    me = alice.me()
    assert me.certificate.spiffe_id == spiffe_id
    assert me.certificate.subject == peer.subject
    assert me.certificate.thumbprint == peer.thumbprint
    assert me.certificate.expire_time.seconds == peer.not_after
    assert me.token.subject == alice.resource
    assert me.token.issuer == house.config.tokens.issuer
    assert me.token.authenticator == "jwt"
    assert list(me.token.roles) == ["auditor", "clerk"]
    assert not me.token.scopes
    assert me.token.client_id == spiffe_id
    assert me.token.token_id == claims["jti"]
    assert me.token.expire_time == alice.tokens.access_token_expire_time


def test_the_key_set_verifies_a_token_for_any_jwt_library(house: House, alice: Person) -> None:
    """Public members only; a caller without a token may read them."""
    key_set = alice.do("GetKeySet", tokens_pb.GetKeySetRequest(), "")
    header = jwt.get_unverified_header(alice.tokens.access_token)
    (key,) = [MessageToDict(key) for key in key_set.keys if key.kid == header["kid"]]
    assert set(key) == {"kty", "kid", "use", "alg", "crv", "x", "y"}
    claims = jwt.decode(
        alice.tokens.access_token,
        jwt.PyJWK(key),
        algorithms=[key["alg"]],
        audience=house.config.tokens.audience,
        issuer=house.config.tokens.issuer,
    )
    assert header["typ"] == "at+jwt"
    assert claims["sub"] == alice.resource
    assert claims["cnf"] == {"x5t#S256": alice.client.thumbprint}
    tampered = alice.tokens.access_token[:-8] + "AAAAAAAA"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(tampered, jwt.PyJWK(key), algorithms=["ES256"], audience="secure-grpc")


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("Login", tokens_pb.LoginRequest(user_name="admin", password=PASSWORD)),
        ("Refresh", tokens_pb.RefreshRequest()),
        ("IssueToken", tokens_pb.IssueTokenRequest()),
        ("GetKeySet", tokens_pb.GetKeySetRequest()),
    ],
)
def test_nothing_is_open_without_a_client_certificate(
    house: House, method: str, request_message: object
) -> None:
    stub = TokenServiceStub(house.channel(None))
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request_message, timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("method", ["WhoAmI", "Logout", "RevokeToken"])
def test_the_rest_needs_a_token(alice: Person, method: str) -> None:
    request = getattr(tokens_pb, f"{method}Request")()
    assert alice.refused(method, request, "").told == REFUSED
