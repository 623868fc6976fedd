"""Tokens with a defect are refused for that defect, by a real server; tokens without are served."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from greeter import ADMINS, AioGreeter, Greeter, aio_call, call
from secure_server.auth.key_sets import read_key_set
from secure_server.testing import (
    DEFECTS,
    GuardedServer,
    Issuer,
    aio_guarded_server,
    guarded_server,
)
from secure_tls import Authority, PeerError, parse_peer

REFUSED = grpc.StatusCode.UNAUTHENTICATED

# What our own authenticator calls each defect, in audit: one code means one reason.
CODES = {
    "expired": "expired",
    "not_yet_valid": "clock",
    "issued_in_future": "clock",
    "lifetime_too_long": "lifetime",
    "string_exp": "exp",
    "boolean_exp": "exp",
    "infinite_exp": "exp",
    "nan_exp": "malformed",
    "wrong_issuer": "unclaimed",
    "wrong_audience": "aud",
    "empty_audience": "aud",
    "missing_iss": "unclaimed",
    "missing_aud": "aud",
    "missing_exp": "exp",
    "missing_iat": "iat",
    "missing_sub": "sub",
    "missing_jti": "jti",
    "missing_client_id": "client_id",
    "empty_sub": "sub",
    "text_roles": "roles",
    "list_scope": "scope",
    "unbound": "cnf",
    "bound_to_other_certificate": "cnf",
    "alg_none": "alg",
    "missing_alg": "alg",
    "wrong_alg": "alg",
    "hmac_with_public_key": "alg",
    "missing_kid": "kid",
    "unknown_kid": "kid",
    "embedded_jwk": "signature",
    "remote_jwk": "signature",
    "wrong_typ": "typ",
    "missing_typ": "typ",
    "crit_extension": "crit",
    "unencoded_payload": "crit",
    "foreign_key": "signature",
    "tampered_payload": "signature",
    "missing_signature": "signature",
    "truncated_signature": "signature",
    "zero_signature": "signature",
    "der_signature": "signature",
    "padded": "unclaimed",
    "respelt_signature": "malformed",
    "duplicate_member": "malformed",
    "duplicate_header_member": "malformed",
    "array_payload": "malformed",
    "oversized": "too_long",
    "json_serialization": "unclaimed",
}


@pytest.fixture(scope="module")
def server() -> Iterator[GuardedServer]:
    with guarded_server(Greeter().add_to, policy=ADMINS) as server:
        yield server


def claims_of(token: str) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))  # type: ignore[no-any-return]


def test_the_defects_are_pinned_and_each_is_explained_in_a_line_of_its_own() -> None:
    assert list(DEFECTS) == list(CODES)
    assert len(set(DEFECTS.values())) == len(DEFECTS)
    assert all(line.endswith(".") and "\n" not in line for line in DEFECTS.values())


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_refused_by_the_threaded_server(server: GuardedServer, defect: str) -> None:
    alice = server.client("alice")
    good = server.issuer.token(alice, roles=["admin"])
    assert isinstance(call(server.channel(token=good)), bytes)
    server.audit.clear()
    bad = server.issuer.token(alice, roles=["admin"], defect=defect)
    assert call(server.channel(token=bad)) is REFUSED
    assert [event.code for event in server.audit] == [CODES[defect]]


def test_every_defect_is_refused_by_the_asyncio_server() -> None:
    greeter = AioGreeter()

    async def main() -> dict[str, object]:
        async with aio_guarded_server(greeter.add_to, policy=ADMINS) as server:
            alice = server.client("alice")
            good = server.issuer.token(alice, roles=["admin"])
            assert isinstance(await aio_call(server.channel(token=good)), bytes)
            channel = server.channel(token=False)
            answers = {}
            for defect in DEFECTS:
                token = server.issuer.token(alice, roles=["admin"], defect=defect)
                metadata = [("authorization", f"Bearer {token}")]
                answers[defect] = await aio_call(channel, metadata=metadata)
            assert [event.code for event in server.audit] == list(CODES.values())
            return answers

    assert set(asyncio.run(main()).values()) == {REFUSED}
    assert greeter.reached == 1


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("expried", "did you mean expired"),
        ("alg-none", "did you mean alg_none"),
        ("", "DEFECTS names them all"),
    ],
)
def test_an_unknown_defect_is_an_error_with_a_hint(wrong: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        Issuer().token("thumbprint", defect=wrong)


def test_a_good_token_says_what_was_asked_for() -> None:
    issuer = Issuer("https://sso.example", "shop", clock=lambda: 1_000_000.9)
    alice = Authority.create("example.org").issue_client("alice")
    claims = claims_of(
        issuer.token(alice, subject="users/alice", roles={"b", "a"}, scopes=["w", "r"], sid="s1")
    )
    assert len(claims.pop("jti")) > 20
    assert claims == {
        "iss": "https://sso.example",
        "aud": "shop",
        "sub": "users/alice",
        "client_id": "spiffe://example.org/client/alice",
        "iat": 1_000_000,
        "exp": 1_003_600,
        "cnf": {"x5t#S256": parse_peer(alice.certificate_pem).thumbprint},
        "roles": ["a", "b"],
        "scope": "r w",
        "sid": "s1",
    }


def test_claims_replace_the_issuers_own() -> None:
    end = int(time.time()) + 60
    claims = claims_of(Issuer().token("thumbprint", aud=["a", "b"], exp=end, client_id="app"))
    assert (claims["aud"], claims["exp"], claims["client_id"]) == (["a", "b"], end, "app")
    assert claims["cnf"] == {"x5t#S256": "thumbprint"}


def test_no_two_tokens_are_the_same_nor_two_issuers_keys() -> None:
    issuer = Issuer()
    assert issuer.token("thumbprint") != issuer.token("thumbprint")
    assert issuer.key_id != Issuer().key_id


def test_a_token_cannot_be_bound_to_a_certificate_without_an_identity() -> None:
    authority = Authority.create("example.org")
    template = authority.client_template("alice").lacking(x509.SubjectAlternativeName)
    with pytest.raises(PeerError):
        Issuer().token(authority.issue(template))


def test_the_key_set_is_the_document_that_a_server_reads(tmp_path: Path) -> None:
    issuer = Issuer()
    path = tmp_path / "jwks.json"
    path.write_text(issuer.jwks())
    (key_id,) = read_key_set(path)
    assert read_key_set(path) == issuer.key_set
    assert key_id == issuer.key_id
    assert '"d"' not in issuer.jwks()


def test_the_key_shows_in_no_repr() -> None:
    assert repr(Issuer()) == "Issuer('https://issuer.example.org', 'example')"
