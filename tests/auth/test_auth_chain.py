"""Which authenticator is asked about which credentials: no two share a matcher."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from secure_server import ANONYMOUS, AuthenticationError, AuthenticatorError, Credentials
from secure_server.auth.authenticators import Authenticators
from secure_server.config import Config
from secure_server.guard.chain import build_chain
from secure_server.plugins import (
    BareCertificate,
    CredentialMatcher,
    IssuedBy,
    Opaque,
    Peer,
    Prefix,
    Principal,
    Scheme,
)
from secure_server.sections import TokensSection, read_authenticator
from secure_server.testing import Issuer, as_principal


class Asked:
    """Recognises every credential, and counts."""

    def __init__(self, name: str, *matchers: CredentialMatcher, knows: bool = True) -> None:
        self.name = name
        self.matchers: Collection[CredentialMatcher] = matchers
        self.asked = 0
        self.knows = knows

    def authenticate(
        self, _credentials: Credentials | None, _peer: Peer | None
    ) -> Principal | None:
        self.asked += 1
        return Principal(self.name, "issuer", self.name) if self.knows else None


@pytest.fixture(scope="module")
def peer() -> Peer:
    with as_principal("alice") as caller:
        assert caller.peer is not None
        return caller.peer


def test_each_credential_goes_only_to_the_authenticator_whose_matcher_fits(peer: Peer) -> None:
    one, other = Issuer("https://one"), Issuer("https://two")
    members = {
        "one": Asked("one", IssuedBy("https://one")),
        "two": Asked("two", IssuedBy("https://two")),
        "keys": Asked("keys", Prefix("sgk_")),
        "opaque": Asked("opaque", Opaque()),
        "scheme": Asked("scheme", Scheme("ACME")),
        "bare": Asked("bare", BareCertificate()),
    }
    chain = Authenticators(list(members.values()))
    for value, expected in (
        (f"Bearer {one.token(None)}", "one"),
        (f"Bearer {other.token(None)}", "two"),
        ("Bearer sgk_x", "keys"),
        ("Bearer sgk_a.b.c", "keys"),
        ("Bearer 2YotnFZFEjr1zCsicMWpAA", "opaque"),
        ("acme x", "scheme"),
        ("AcMe x", "scheme"),
        (None, "bare"),
    ):
        credentials = None if value is None else Credentials.parse(value)
        assert chain.authenticate(credentials, peer).subject == expected, value
    assert [member.asked for member in members.values()] == [1, 1, 2, 1, 2, 1]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("Bearer " + Issuer("https://three").token(None), "unclaimed"),
        ("Bearer " + Issuer("https://one").token(None, iss=["https://one"]), "unclaimed"),
        ("Bearer " + Issuer("https://one").token(None, defect="missing_iss"), "unclaimed"),
        ("Bearer " + Issuer("https://one").token(None, defect="duplicate_member"), "malformed"),
        ("Bearer " + "x" * 8193, "too_long"),
        ("Basic x", "unclaimed"),
    ],
)
def test_an_unclaimed_credential_is_refused_and_no_authenticator_is_asked(
    peer: Peer, value: str, code: str
) -> None:
    members = [Asked("one", IssuedBy("https://one")), Asked("opaque", Opaque())]
    with pytest.raises(AuthenticationError) as refused:
        Authenticators(members).authenticate(Credentials.parse(value), peer)
    assert refused.value.code == code
    assert [member.asked for member in members] == [0, 0]


def test_an_answer_of_none_leaves_a_credential_unclaimed_and_a_caller_anonymous(peer: Peer) -> None:
    chain = Authenticators(
        [Asked("opaque", Opaque(), knows=False), Asked("bare", BareCertificate(), knows=False)]
    )
    with pytest.raises(AuthenticationError, match="No authenticator knows"):
        chain.authenticate(Credentials.parse("Bearer x"), peer)
    assert chain.authenticate(None, peer) is ANONYMOUS
    assert chain.authenticate(None, None) is ANONYMOUS


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (IssuedBy("https://a"), IssuedBy("https://a")),
        (Prefix("sgk_"), Prefix("sgk_")),
        (Prefix("sgk_"), Prefix("sgk_live_")),
        (Prefix("ey"), IssuedBy("https://a")),
        (Prefix("e"), IssuedBy("https://a")),
        (IssuedBy("https://a"), Prefix("eyJhbGciOi")),
        (Opaque(), Opaque()),
        (Scheme("acme"), Scheme("ACME")),
        (BareCertificate(), BareCertificate()),
    ],
)
def test_authenticators_that_claim_the_same_credentials_prevent_the_start(
    one: CredentialMatcher, other: CredentialMatcher
) -> None:
    with pytest.raises(AuthenticatorError, match="'first' and 'second' both claim"):
        Authenticators([Asked("first", one), Asked("second", other)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (IssuedBy("https://a"), IssuedBy("https://a/")),
        (Prefix("sgk_"), IssuedBy("https://a")),
        (Prefix("ea"), IssuedBy("https://a")),
        (Prefix("sgk_"), Opaque()),
        (IssuedBy("https://a"), Opaque()),
        (Scheme("acme"), Opaque()),
        (BareCertificate(), Opaque()),
    ],
)
def test_authenticators_that_claim_different_credentials_coexist(
    one: CredentialMatcher, other: CredentialMatcher
) -> None:
    assert len(Authenticators([Asked("first", one), Asked("second", other)]).members) == 2


@pytest.mark.parametrize("sign", [Scheme("bearer"), Scheme("Bearer"), Prefix(""), IssuedBy("")])
def test_a_matcher_that_matches_everything_prevents_the_start(sign: CredentialMatcher) -> None:
    with pytest.raises(AuthenticatorError, match="greedy"):
        Authenticators([Asked("greedy", sign)])


def test_two_authenticators_of_one_name_prevent_the_start() -> None:
    with pytest.raises(AuthenticatorError, match=r"called 'same'.*`name`"):
        Authenticators([Asked("same", Opaque()), Asked("same", BareCertificate())])


@pytest.mark.parametrize(
    ("tables", "of"),
    [
        ([{"type": "api_key", "file": "k", "issuer": "https://ours"}], "[tokens]"),
        (
            [{"type": "api_key", "file": "k", "issuer": "spiffe://example.org"}],
            "the certificates of that trust domain",
        ),
        (
            [{"type": "oidc", "issuer": "https://ours", "audience": "a", "profile": "rfc9068"}],
            "[tokens]",
        ),
        (
            [
                {"type": "api_key", "file": "k", "issuer": "https://theirs"},
                {"type": "oidc", "issuer": "https://theirs", "audience": "a", "profile": "rfc9068"},
            ],
            "the authenticator 'oidc'",
        ),
    ],
)
def test_M1_an_issuer_has_one_source(tables: list[dict[str, object]], of: str) -> None:
    """Otherwise the API key of an ``alice`` could pass for the ``alice`` of another issuer."""
    tokens = TokensSection(issuer="https://ours")
    config = Config(tokens=tokens, authenticators=[read_authenticator(table) for table in tables])
    with pytest.raises(AuthenticatorError, match=re.escape(f"has the issuer of {of}")):
        build_chain(config, clock=time.time, find_key={}.get)


def test_M1_an_issuer_whose_name_begins_like_another_s_is_refused() -> None:
    """The first could give the subject ``realms/b/alice``, and policies say ISSUER/SUBJECT."""
    names = ("https://a.example", "https://a.example/realms/b")
    settings = {"type": "oidc", "audience": "a", "profile": "rfc9068"}
    for one, other in (names, names[::-1]):
        tables = [settings | {"name": name, "issuer": name} for name in (one, other)]
        config = Config(authenticators=[read_authenticator(table) for table in tables])
        with pytest.raises(AuthenticatorError, match="reads as the other's caller"):
            build_chain(config, clock=time.time)
    ours = Config(
        tokens=TokensSection(issuer=names[0]),
        authenticators=[read_authenticator(settings | {"issuer": names[1]})],
    )
    with pytest.raises(AuthenticatorError, match="reads as the other's caller"):
        build_chain(ours, clock=time.time, find_key={}.get)


def test_issuers_with_similar_names_coexist(tmp_path: Path) -> None:
    issuer = Issuer()
    (tmp_path / "keys.json").write_text(issuer.jwks())
    settings = {
        "type": "oidc",
        "audience": "a",
        "profile": "rfc9068",
        "key_set": tmp_path / "keys.json",
    }
    names = ("https://a.example/realms/a", "https://a.example/realms/ab", "https://a.example/")
    config = Config(
        authenticators=[
            read_authenticator(settings | {"name": name, "issuer": name}) for name in names
        ]
    )
    build_chain(config, clock=time.time).close()
