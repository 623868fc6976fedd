"""Group M: several issuers and one service. No issuer has power over another's principals."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from services.people import Person, Refused, fresh, newcomer, outcome, refused, update_request

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_server.app.lifecycle import Server
from secure_server.auth import oidc as oidc_module
from secure_server.auth.api_keys import make_api_key
from secure_server.auth.local_issuer import MAX_TOKEN_LIFETIME
from secure_server.auth.oidc import MAX_LIFETIME
from secure_server.auth.profiles import PROFILES
from secure_server.testing import Issuer, Provider, running_provider
from secure_server.tokens.revocations import LEEWAY_SECONDS
from secure_server.users import AccountState, requests
from secure_server.users.account_factory import AccountFactory
from support.door import wait_until
from support.house import House, bearer, reason_of, running_house
from support.old_store import old_database

NOT_ALLOWED = ("PERMISSION_DENIED", "NOT_ALLOWED", "")
NOT_REVOCABLE = ("FAILED_PRECONDITION", "NOT_REVOCABLE", "")
A, B = "https://a.example.org", "https://b.example.org"


def oidc(name: str) -> str:
    return (
        f'[[authenticators]]\ntype = "oidc"\nname = "{name}"\nprofile = "rfc9068"\n'
        f'issuer = "https://{name}.example.org"\naudience = "secure-grpc"\n'
        f'key_set = "{name}.json"\nroles_claim = "groups"\nroles = {{ admins = "admin" }}\n'
    )


@dataclass
class Tenants:
    """A server that trusts two more issuers, an introspected one, API keys and certificates."""

    house: House
    a: Issuer
    b: Issuer
    provider: Provider
    api_key: str
    admin: Person

    @property
    def issuer(self) -> str:
        return self.house.config.tokens.issuer

    @property
    def key_id(self) -> str:
        return self.api_key.split("_")[1]

    def token(self, issuer: Issuer, subject: str = "users/admin", **claims: Any) -> str:
        """A token of an administrator of that issuer, unless ``groups`` say otherwise."""
        return issuer.token(None, subject=subject, **{"groups": ["admins"]} | claims)

    def opaque(self, **members: Any) -> str:
        """An opaque token; a member that is None is left out."""
        token = self.provider.opaque(f"opaque-{uuid.uuid4()}", **members)
        answer = self.provider._active[token]
        self.provider._active[token] = {k: v for k, v in answer.items() if v is not None}
        return token

    def person(self, name: str) -> Person:
        """A caller with a certificate and no token."""
        return Person(self.house, name, self.house.client(name))

    def row(self, issuer: str, token_id: str) -> float | None:
        """Until when the store refuses a token of an issuer."""
        with contextlib.closing(sqlite3.connect(self.house.root / "store.db")) as connection:
            found = connection.execute(
                "SELECT expire_time FROM revocations"
                " WHERE issuer = ? AND kind = 'jti' AND value = ?",
                (issuer, token_id),
            ).fetchone()
        return None if found is None else found[0]


@contextmanager
def running_tenants(root: Path) -> Iterator[Tenants]:
    a, b = Issuer(A, "secure-grpc"), Issuer(B, "secure-grpc")
    (root / "a.json").write_text(a.jwks())
    (root / "b.json").write_text(b.jwks())
    key, entry = make_api_key(
        "users/admin", scopes=(), roles=["admin"], expires=datetime.now(UTC) + timedelta(days=1)
    )
    (root / "api-keys.toml").write_text(entry)
    with running_provider(issuer=Issuer(audience="secure-grpc")) as provider:
        secret = root / "client-secret"
        secret.touch(mode=0o600)
        secret.write_text(provider.client_secret)
        settings = (
            '[[authenticators]]\ntype = "jwt"\n' + oidc("a") + oidc("b") + "[[authenticators]]\n"
            f'type = "introspection"\nendpoint = "{provider.introspection_endpoint}"\n'
            f'issuer = "{provider.issuer.name}"\naudience = "secure-grpc"\ncache = 0\n'
            f'client_id = "{provider.client_id}"\nclient_secret_file = "client-secret"\n'
            f'ca = "{provider.ca_file}"\nallow_private_addresses = true\n'
            '[[authenticators]]\ntype = "api_key"\nfile = "api-keys.toml"\n'
            '[[authenticators]]\ntype = "certificate"\n'
            '[[workloads]]\nspiffe_id = "spiffe://example.org/client/workload"\n'
        )
        # As an authenticator of one's own may: those of this project know no others' sessions.
        rfc9068 = replace(PROFILES["rfc9068"], session="sid")
        with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
            patch.setattr(oidc_module, "PROFILES", {"rfc9068": rfc9068})
            house = stack.enter_context(running_house(root, settings))
            admin = Person(house, "admin", house.admin, house.first_log_in())
            yield Tenants(house, a, b, provider, key, admin)


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    with running_tenants(tmp_path_factory.mktemp("tenants")) as tenants:
        yield tenants


@pytest.fixture
def mallory(tenants: Tenants) -> Person:
    """A caller with a token of issuer A, whose claims A may choose."""
    return tenants.person(fresh("mallory"))


class Watching:
    """A stream of changes of users that stays open until it is ended."""

    def __init__(self, person: Person, token: str) -> None:
        method = person.method("WatchUsers")
        self.call = method(users_pb.WatchUsersRequest(), metadata=bearer(token), timeout=60)
        next(self.call)

    @property
    def is_open(self) -> bool:
        return bool(self.call.is_active())

    def assert_ended(self) -> None:
        wait_until(lambda: not self.is_open)
        with pytest.raises(grpc.RpcError) as caught:
            next(self.call)
        assert self.call.code() is grpc.StatusCode.UNAUTHENTICATED
        assert reason_of(caught.value) == "SESSION_ENDED"


def log_out(person: Person, token: str) -> None:
    person.do("Logout", pb.LogoutRequest(), token)


def test_M1_a_log_out_ends_the_issuers_own_token_and_no_other(
    tenants: Tenants, mallory: Person
) -> None:
    """Even where it has the ID of another's token or session, of B's token, or of an API key."""
    admin, workload = tenants.admin, tenants.person("workload")
    ours = admin.me().token
    session = admin.do("ListSessions", pb.ListSessionsRequest(parent=ours.subject)).sessions[0].name
    session_id = session.rpartition("/")[2]
    issued = workload.do("IssueToken", pb.IssueTokenRequest(), "").access_token
    jti_of_b = str(uuid.uuid4())
    theirs = tenants.token(tenants.b, jti=jti_of_b, client_id=ours.client_id)
    others = (
        (admin, admin.tokens.access_token),
        (workload, issued),
        (tenants.person("b"), theirs),
        (tenants.person("ci"), tenants.api_key),
    )
    taken = (
        ours.token_id,
        workload.me(issued).token.token_id,
        jti_of_b,
        tenants.key_id,
        session_id,
    )
    with ExitStack() as stack:
        held = [Watching(*other) for other in others if other[0] is not workload]
        for jti in taken:
            attack = tenants.token(
                tenants.a, ours.subject, jti=jti, sid=session_id, client_id=ours.client_id
            )
            own = Watching(mallory, attack)
            stack.callback(own.call.cancel)
            log_out(mallory, attack)
            # Within the second in which the others would have ended too.
            own.assert_ended()
            assert not mallory.is_known(attack)
            assert all(person.is_known(token) for person, token in others), jti
            assert tenants.person("bare").me("").token.authenticator == "certificate"
        assert all(stream.is_open for stream in held)
        for stream in held:
            stream.call.cancel()
    assert admin.do("ListSessions", pb.ListSessionsRequest(parent=ours.subject)).sessions
    assert admin.refresh(admin.tokens).access_token


def test_M1_to_revoke_an_id_means_that_of_one_issuer(tenants: Tenants, mallory: Person) -> None:
    """Without an issuer it is this server's. Administrators and the owner may name another."""
    jti = str(uuid.uuid4())
    client_id = tenants.admin.me().token.client_id
    ours = tenants.house.forge.token(tenants.admin.client.thumbprint, jti=jti, client_id=client_id)
    a, b = (tenants.token(issuer, jti=jti) for issuer in (tenants.a, tenants.b))

    def known() -> list[bool]:
        return [tenants.admin.is_known(ours), mallory.is_known(a), mallory.is_known(b)]

    assert known() == [True, True, True]
    revoke = pb.RevokeTokenRequest(token_id=jti)
    plain = tenants.token(tenants.a, "users/plain", groups=[])
    same_id = tenants.token(tenants.a, "users/plain", groups=[], jti=jti)
    for issuer in ("", A, B, "https://unknown.example.org"):
        request = pb.RevokeTokenRequest(token_id=jti, issuer=issuer)
        for token in (plain, same_id) if issuer != A else (plain,):
            assert mallory.refused("RevokeToken", request, token).told == NOT_ALLOWED
    tenants.admin.do("RevokeToken", pb.RevokeTokenRequest(token_id=jti, issuer=A))
    assert known() == [True, False, True]
    now = time.time()
    kept = tenants.row(A, jti)
    assert kept is not None
    # How long a token of A's may live at the most: its `exp` is not known.
    assert kept == pytest.approx(now + MAX_LIFETIME + LEEWAY_SECONDS, abs=60)
    tenants.admin.do("RevokeToken", revoke)
    assert known() == [False, False, True]
    kept = tenants.row(tenants.issuer, jti)
    assert kept == pytest.approx(now + MAX_TOKEN_LIFETIME + LEEWAY_SECONDS, abs=60)
    own = pb.RevokeTokenRequest(token_id=jti, issuer=B)
    mallory.do("RevokeToken", own, b)
    assert known() == [False, False, False]


def test_M1_a_token_of_ours_that_is_watched_is_not_another_issuers(
    tenants: Tenants, mallory: Person
) -> None:
    """Another issuer's token is not active: introspection is about this server's (RFC 7662)."""
    workload = tenants.person("workload")
    token = workload.do("IssueToken", pb.IssueTokenRequest(), "").access_token
    attack = tenants.token(tenants.a, jti=workload.me(token).token.token_id)

    def questions() -> Iterator[pb.IntrospectRequest]:
        yield pb.IntrospectRequest(correlation_id="ours", token=token)
        yield pb.IntrospectRequest(correlation_id="theirs", token=attack)
        log_out(mallory, attack)
        assert not mallory.is_known(attack)
        yield pb.IntrospectRequest(correlation_id="again", token=token)

    answers = [
        (answer.correlation_id, answer.active)
        for answer in tenants.admin.do("Introspect", questions())
    ]
    assert answers == [("ours", True), ("theirs", False), ("again", True)]


def test_M2_page_and_resume_tokens_of_one_issuers_principal_are_not_its_namesakes(
    tenants: Tenants, mallory: Person
) -> None:
    tenants.admin.create(fresh("one"))
    tenants.admin.create(fresh("two"))
    tenants.admin.log_in()
    subject = tenants.admin.me().token.subject
    namesake = tenants.token(tenants.a, subject)
    callers = ((tenants.admin, None), (mallory, namesake))
    pages: dict[str, Any] = {
        "ListUsers": users_pb.ListUsersRequest(page_size=1),
        "ListSessions": pb.ListSessionsRequest(parent=subject, page_size=1),
    }
    for method, request in pages.items():
        tokens = [person.do(method, request, token).next_page_token for person, token in callers]
        assert all(tokens)
        assert len(set(tokens)) == 2
        for (person, token), own, other in zip(callers, tokens, tokens[::-1], strict=True):
            request.page_token = own
            assert person.do(method, request, token)
            request.page_token = other
            told = person.refused(method, request, token).told
            assert told == ("INVALID_ARGUMENT", "INVALID_FIELD", "page_token")
    alice = newcomer(tenants.house, tenants.admin.tokens.access_token, called="alice")
    another = pb.ListSessionsRequest(parent=alice.resource, page_token=tokens[0])
    told = tenants.admin.refused("ListSessions", another).told
    assert told == ("INVALID_ARGUMENT", "INVALID_FIELD", "page_token")
    resume = []
    for person, token in callers:
        stream = person.do("WatchUsers", users_pb.WatchUsersRequest(), token)
        resume.append(next(stream).resume_token)
        stream.cancel()
    for (person, token), own, other in zip(callers, resume, resume[::-1], strict=True):
        stream = person.do("WatchUsers", users_pb.WatchUsersRequest(resume_token=own), token)
        assert next(stream).resume_token == own
        stream.cancel()
        told = person.refused(
            "WatchUsers", users_pb.WatchUsersRequest(resume_token=other), token
        ).told
        assert told == ("INVALID_ARGUMENT", "INVALID_FIELD", "resume_token")


def test_M2_a_request_id_of_one_issuers_principal_is_not_its_namesakes(
    tenants: Tenants, mallory: Person
) -> None:
    """A caller of another issuer who repeats it gets no hint: it is a new request."""
    namesake = tenants.token(tenants.a, tenants.admin.me().token.subject)
    name = fresh("again")
    request = users_pb.CreateUserRequest(user_id=name, request_id=str(uuid.uuid4()))
    first = tenants.admin.do("CreateUser", request)
    assert tenants.admin.do("CreateUser", request) == first
    told = mallory.refused("CreateUser", request, namesake).told
    assert told == ("ALREADY_EXISTS", "USER_ALREADY_EXISTS", "")
    tenants.admin.do("DeleteUser", users_pb.DeleteUserRequest(name=first.name))
    second = mallory.do("CreateUser", request, namesake)
    assert second.uid != first.uid
    assert mallory.do("CreateUser", request, namesake) == second
    assert tenants.admin.do("CreateUser", request) == first
    other = users_pb.CreateUserRequest(user_id=fresh("b"), request_id=request.request_id)
    third = tenants.person("b").do("CreateUser", other, tenants.token(tenants.b, "users/admin"))
    assert third.name == f"users/{other.user_id}"


def test_M2_an_etag_of_a_user_is_of_no_use_to_another_issuers_namesake(
    tenants: Tenants, mallory: Person
) -> None:
    """The answer is the same to the last byte of the trailers, stale etag or not."""
    alice = newcomer(tenants.house, tenants.admin.tokens.access_token, called="alice")
    namesake = tenants.token(tenants.a, alice.resource, groups=[])
    before = alice.get()
    refusals = {
        mallory.refused(
            "UpdateUser", update_request(alice.name, ["email"], email="m@x.org", etag=e), namesake
        )
        for e in (before.etag, "stale", "")
    }
    assert [refusal.told for refusal in refusals] == [NOT_ALLOWED]
    assert alice.get() == before


def test_M14_a_log_out_by_what_does_not_end_by_it_is_refused_with_a_reason(
    tenants: Tenants,
) -> None:
    """And ends no token, of the caller or of another."""
    person, other = tenants.person(fresh("bare")), tenants.person(fresh("other"))
    endless = tenants.opaque(exp=None, jti="endless")
    nameless = tenants.opaque(exp=None)
    for token, hint in (
        ("", "revocation list"),
        (tenants.api_key, "file"),
        (endless, "issuer"),
        (nameless, "issuer"),
    ):
        refusal = person.refused("Logout", pb.LogoutRequest(), token)
        assert refusal.told == NOT_REVOCABLE
        assert hint in refusal.text
        assert token == "" or token not in refusal.text
        assert person.is_known(token)
    assert other.me("").token.subject == f"spiffe://example.org/client/{other.name}"
    assert tenants.row("api-keys", tenants.key_id) is None


@pytest.mark.parametrize("how", ["log out", "revoke", "revoke as administrator"])
def test_M14_what_can_be_revoked_is_and_stays_so_until_it_has_ended(
    tenants: Tenants, mallory: Person, how: str
) -> None:
    """For an issuer of signed tokens, and for one that is introspected."""
    exp = int(time.time()) + 3000
    jti = str(uuid.uuid4())
    signed = tenants.token(tenants.a, "users/m", groups=[], jti=jti, exp=exp)
    # Bound to a certificate: an administrator revokes it over another one.
    bound = {"x5t#S256": mallory.client.thumbprint}
    opaque = tenants.opaque(sub="users/m", jti=jti, exp=exp, cnf=bound)
    asked = tenants.provider.issuer.name
    for token, issuer, untouched in ((signed, A, opaque), (opaque, asked, None)):
        assert mallory.is_known(token)
        if how == "log out":
            log_out(mallory, token)
        elif how == "revoke":
            mallory.do("RevokeToken", pb.RevokeTokenRequest(token=token), token)
        else:
            stranger = tenants.token(tenants.b, "users/m", groups=[])
            request = pb.RevokeTokenRequest(token=token)
            assert mallory.refused("RevokeToken", request, stranger).told == NOT_ALLOWED
            assert mallory.is_known(token)
            tenants.admin.do("RevokeToken", request)
        assert not mallory.is_known(token)
        assert tenants.row(issuer, jti) == exp + LEEWAY_SECONDS
        if untouched is not None:
            assert mallory.is_known(untouched)


def test_M14_to_revoke_what_cannot_be_revoked_here_is_refused_with_a_reason(
    tenants: Tenants, mallory: Person
) -> None:
    """OK would promise something that does not happen."""
    elsewhere = Issuer("https://elsewhere.example.org", "secure-grpc")
    cases = (
        pb.RevokeTokenRequest(token=elsewhere.token(None)),
        pb.RevokeTokenRequest(token=tenants.opaque(exp=None)),
        # Not good now, but perhaps in a minute.
        pb.RevokeTokenRequest(token=tenants.token(tenants.a, nbf=int(time.time()) + 60)),
        pb.RevokeTokenRequest(token=tenants.token(Issuer(A, "secure-grpc"))),
        pb.RevokeTokenRequest(token=tenants.house.forge.token("x", nbf=int(time.time()) + 60)),
        pb.RevokeTokenRequest(token=tenants.api_key),
        pb.RevokeTokenRequest(token_id=tenants.key_id, issuer="api-keys"),
        pb.RevokeTokenRequest(token_id="x", issuer=elsewhere.name),
        pb.RevokeTokenRequest(token_id="x", issuer=tenants.provider.issuer.name),
        pb.RevokeTokenRequest(token_id="x", issuer="spiffe://example.org"),
    )
    for request in cases:
        refusal = tenants.admin.refused("RevokeToken", request)
        assert refusal.told == NOT_REVOCABLE, request
        assert len(refusal.text) > 40
    token = tenants.token(tenants.a)
    both = pb.RevokeTokenRequest(token=token, issuer=A)
    told = tenants.admin.refused("RevokeToken", both).told
    assert told == ("INVALID_ARGUMENT", "INVALID_FIELD", "issuer")
    assert mallory.is_known(tenants.api_key)
    assert mallory.is_known(token)


def test_M14_what_is_no_live_token_of_an_issuer_needs_no_revocation(
    tenants: Tenants,
) -> None:
    """RFC 7009, section 2.2. But an issuer that cannot be reached cannot say."""
    now = int(time.time())
    for text in (
        tenants.token(tenants.a, iat=now - 700, exp=now - 100),
        tenants.token(tenants.a)[:-4] + "AAAA",
        tenants.house.forge.token("x", header={"kid": "withdrawn"}),
        f"opaque-{uuid.uuid4()}",
        "",
    ):
        assert not isinstance(
            outcome(tenants.admin.do, "RevokeToken", pb.RevokeTokenRequest(token=text)), Refused
        )
    tenants.provider.fail()
    try:
        request = pb.RevokeTokenRequest(token=tenants.opaque())
        told = refused(tenants.admin.do, "RevokeToken", request).told
        assert told == ("UNAVAILABLE", "ISSUER_UNAVAILABLE", "")
    finally:
        tenants.provider.recover()


def test_M1_what_is_written_down_names_the_issuer_beside_each_subject(
    tenants: Tenants, mallory: Person, log: list[dict[str, Any]]
) -> None:
    subject = tenants.admin.me().token.subject
    by = {"by": subject, "by_issuer": A}
    namesake = tenants.token(tenants.a, subject)
    victim = newcomer(tenants.house, tenants.admin.tokens.access_token, called="victim")
    sessions = victim.do("ListSessions", pb.ListSessionsRequest(parent=victim.resource)).sessions
    token = tenants.token(tenants.b, subject, jti="of-b")
    for method, request in (
        ("RevokeToken", pb.RevokeTokenRequest(token=token)),
        ("RevokeToken", pb.RevokeTokenRequest(token_id="an-id", issuer=B)),
        ("RevokeSession", pb.RevokeSessionRequest(name=sessions[0].name)),
        ("RevokeUser", pb.RevokeUserRequest(name=victim.resource)),
        ("RevokeClient", pb.RevokeClientRequest(client_id="spiffe://example.org/client/x")),
        ("UpdateUser", update_request(victim.name, ["email"], email="v@example.org")),
        ("DeleteUser", users_pb.DeleteUserRequest(name=victim.resource)),
    ):
        mallory.do(method, request, namesake)
    log_out(mallory, namesake)
    mallory.refused("WhoAmI", pb.WhoAmIRequest(), namesake)
    named = [line for line in log if line.keys() & {"by", "subject"}]
    for line in named:
        assert ("by" in line) <= bool(line.get("by_issuer")), line
        assert ("subject" in line) <= bool(line.get("issuer")), line
    written = [line for line in named if line.get("by_issuer") == A]
    assert [line["event"] for line in written] == [
        "token revoked",
        "token revoked",
        "session revoked",
        "user revoked",
        "client revoked",
        "user changed",
        "user deleted",
        "logged out",
    ]
    assert all(by.items() <= line.items() for line in written)
    assert {"subject": subject, "issuer": B, "jti": "of-b"}.items() <= written[0].items()
    assert {"issuer": B, "jti": "an-id"}.items() <= written[1].items()
    assert "subject" not in written[1]
    (logged_out,) = [line for line in log if line["event"] == "logged out"]
    assert (logged_out["subject"], logged_out["issuer"]) == (subject, A)
    (again,) = [line for line in log if line.get("reason") == "revoked"]
    assert again["unverified"]["iss"] == A


def test_M1_M2_a_server_takes_over_what_the_version_before_it_had_revoked_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a database that names no issuers."""
    sid = str(uuid.uuid4())
    name, request_id = fresh("before"), str(uuid.uuid4())
    asked = (request_id, requests.digest(name, "", "", (), "active", False))
    account = AccountFactory(time.time, os.urandom).account(
        name, email="", display_name="", roles=(), state=AccountState.ACTIVE
    )
    old = old_database(f"sqlite:///{tmp_path}/store.db", monkeypatch, "0003")
    with old.write() as connection:
        for row in (
            ("jti", "stolen", None),
            ("session", sid, None),
            ("user", "users/gone", time.time()),
            ("jti", "", None),
        ):
            connection.exec_driver_sql(
                "INSERT INTO revocations (kind, value, issued_until, expire_time)"
                " VALUES (?, ?, ?, 1e12)",
                row,
            )
        connection.exec_driver_sql(
            "INSERT INTO requests (caller, request_id, digest, result, create_time)"
            " VALUES ('users/admin', ?, ?, ?, ?)",
            (*asked, json.dumps(account.to_json()), time.time()),
        )
    old.close()
    with running_tenants(tmp_path) as tenants:
        admin, person = tenants.admin, tenants.person("m")
        forge, mine = tenants.house.forge, admin.client.thumbprint
        before = {"iat": int(time.time()) - 60}
        assert admin.is_known(forge.token(mine, **before))
        for claims in ({"jti": "stolen"}, {"sid": sid}, {"sub": "users/gone"}):
            assert not admin.is_known(forge.token(mine, **before, **claims)), claims
        assert not person.is_known(tenants.token(tenants.a, jti="stolen"))
        assert person.is_known(tenants.token(tenants.a, "users/gone", sid=sid, **before))
        assert person.me("").token.authenticator == "certificate"
        request = users_pb.CreateUserRequest(user_id=name, request_id=request_id)
        assert admin.do("CreateUser", request).uid == account.uid
        namesake = person.do("CreateUser", request, tenants.token(tenants.a, "users/admin"))
        assert namesake.uid != account.uid


def test_M1_what_was_revoked_stays_so_after_a_restart(tmp_path: Path) -> None:
    """Tokens of the same issuer stay revoked, and no others."""
    jti = str(uuid.uuid4())
    with running_tenants(tmp_path) as tenants:
        a, b = (tenants.token(issuer, jti=jti) for issuer in (tenants.a, tenants.b))
        person = tenants.person("m")
        log_out(person, a)
        assert not person.is_known(a)
        house = tenants.house
        house.server.stop()
        house.server = Server(house.config)
        house.server.start()
        again = tenants.person("m")
        assert not again.is_known(a)
        assert again.is_known(b)
