"""JSON Web Tokens (group J), sent to the real service over mutual TLS."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from secure_server.auth import AuthenticationError, Credentials
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.auth.keys import VerificationKey
from support.forge import REMOVE, Forge, b64, parts
from support.house import House, bearer, call

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="session")
def forge(house: House) -> Forge:
    return house.forge


@pytest.fixture
def thumbprint(house: House) -> str:
    return house.admin.thumbprint


def assert_refused(house: House, token: str) -> None:
    outcome = call(house.channel(house.admin), metadata=bearer(token))
    assert outcome.code is grpc.StatusCode.UNAUTHENTICATED, outcome
    assert outcome.details == "The credentials of this call were refused."


def assert_served(house: House, token: str) -> None:
    outcome = call(house.channel(house.admin), metadata=bearer(token))
    assert outcome.served, outcome


def test_what_the_forge_makes_unchanged_is_served(
    house: House, forge: Forge, thumbprint: str
) -> None:
    """Otherwise every other test here would pass for the wrong reason."""
    assert_served(house, forge.token(thumbprint))


@pytest.mark.parametrize("alg", ["none", "NoNe", "", REMOVE, None, 1])
def test_J1_alg_none(house: House, forge: Forge, thumbprint: str, alg: Any) -> None:
    token = forge.token(thumbprint, {"alg": alg})
    assert_refused(house, token)
    assert_refused(house, token.rpartition(".")[0] + ".")


def public_forms(forge: Forge) -> dict[str, bytes]:
    public = forge.key.public_key()
    return {
        "pem": public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        "der": public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        "point": public.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        ),
        "jwk": jwt.get_algorithm_by_name("ES256").to_jwk(public).encode(),
    }


@pytest.mark.parametrize("form", ["pem", "der", "point", "jwk"])
@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_J2_hmac_keyed_with_the_public_key(
    house: House, forge: Forge, thumbprint: str, form: str, alg: str
) -> None:
    first = b64(json.dumps(forge.header(alg=alg)).encode())
    second = b64(json.dumps(forge.claims(thumbprint)).encode())
    digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}[alg]
    signature = hmac.digest(public_forms(forge)[form], f"{first}.{second}".encode(), digest)
    assert_refused(house, f"{first}.{second}.{b64(signature)}")


def test_J3_another_keys_type_under_an_allowed_alg(
    house: House, forge: Forge, thumbprint: str
) -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    first = b64(json.dumps(forge.header()).encode())
    second = b64(json.dumps(forge.claims(thumbprint)).encode())
    signature = other.sign(f"{first}.{second}".encode())
    assert_refused(house, f"{first}.{second}.{b64(signature)}")


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES384", "EdDSA", "es256", "ES256K"])
def test_J4_another_alg_than_the_keys_own(
    house: House, forge: Forge, thumbprint: str, alg: str
) -> None:
    assert_refused(house, forge.token(thumbprint, {"alg": alg}))
    if alg in {"RS256", "PS256"}:
        key = rsa.generate_private_key(65537, 2048)
        token = jwt.encode(
            forge.claims(thumbprint), key, alg, {"typ": "at+jwt", "kid": forge.key_id}
        )
        assert_refused(house, token)


@pytest.mark.parametrize("parameter", ["jwk", "jku", "x5u", "x5c"])
@pytest.mark.parametrize("kid", ["ours", "theirs", "none"])
def test_J5_keys_that_a_token_brings_along_are_never_trusted(
    house: House, forge: Forge, thumbprint: str, parameter: str, kid: str
) -> None:
    mine = ec.generate_private_key(ec.SECP256R1())
    value: Any = {
        "jwk": jwt.get_algorithm_by_name("ES256").to_jwk(mine.public_key(), as_dict=True),
        "jku": "https://127.0.0.1:1/keys",
        "x5u": "https://127.0.0.1:1/certificate",
        "x5c": [base64.b64encode(b"certificate").decode()],
    }[parameter]
    header = {parameter: value}
    if kid != "ours":
        header["kid"] = "mine" if kid == "theirs" else REMOVE
    assert_refused(house, forge.token(thumbprint, header, key=mine))


@pytest.mark.parametrize("crit", [["exp"], ["made-up"], [], "exp", None])
def test_J6_critical_extensions(house: House, forge: Forge, thumbprint: str, crit: Any) -> None:
    assert_refused(house, forge.token(thumbprint, {"crit": crit, "made-up": 1}))


@pytest.mark.parametrize("value", [False, True])
def test_J7_unencoded_payload(house: House, forge: Forge, thumbprint: str, value: bool) -> None:
    assert_refused(house, forge.token(thumbprint, {"b64": value, "crit": ["b64"]}))
    assert_refused(house, forge.token(thumbprint, {"b64": value}))


def test_J8_other_serializations(house: House, forge: Forge, thumbprint: str) -> None:
    good = forge.token(thumbprint)
    header, payload, signature = good.split(".")
    assert_refused(house, f"{header}.AAAA.AAAA.{payload}.{signature}")  # five parts: a JWE
    flattened = {"protected": header, "payload": payload, "signature": signature}
    assert_refused(house, b64(json.dumps(flattened).encode()))
    assert_refused(house, json.dumps(flattened))
    nested = forge.sign(forge.header(cty="JWT"), good.encode())
    assert_refused(house, nested)


@pytest.mark.parametrize(
    "typ", [REMOVE, "JWT", "rt+jwt", "id+jwt", "at+jwt ", "", None, ["at+jwt"], "at-jwt"]
)
def test_J9_another_typ(house: House, forge: Forge, thumbprint: str, typ: Any) -> None:
    assert_refused(house, forge.token(thumbprint, {"typ": typ}))


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_J9_the_spellings_that_rfc_9068_allows(
    house: House, forge: Forge, thumbprint: str, typ: str
) -> None:
    assert_served(house, forge.token(thumbprint, {"typ": typ}))


@pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub", "iat", "jti", "client_id"])
@pytest.mark.parametrize("value", [REMOVE, None, "", [], {}])
def test_J10_a_required_claim_is_missing_or_empty(
    house: House, forge: Forge, thumbprint: str, claim: str, value: Any
) -> None:
    assert_refused(house, forge.token(thumbprint, **{claim: value}))


@pytest.mark.parametrize(
    "text", ['"9999999999"', "true", "NaN", "Infinity", "1e400", "1" + "0" * 30, "-1", "0", "[]"]
)
@pytest.mark.parametrize("claim", ["exp", "iat"])
def test_J11_a_time_that_is_no_number_is_refused(
    house: House, forge: Forge, thumbprint: str, claim: str, text: str
) -> None:
    payload = json.dumps(forge.claims(thumbprint, **{claim: 123456789})).replace("123456789", text)
    assert_refused(house, forge.sign(forge.header(), payload.encode()))


def test_J12_a_lifetime_over_the_cap(house: House, forge: Forge, thumbprint: str) -> None:
    now = int(time.time())
    assert_served(house, forge.token(thumbprint, iat=now, exp=now + 3600))
    assert_refused(house, forge.token(thumbprint, iat=now, exp=now + 3601))


def authenticator(forge: Forge, clock: Callable[[], float]) -> JWTAuthenticator:
    key = VerificationKey(forge.key_id, "ES256", forge.key.public_key())
    return JWTAuthenticator(
        name="jwt",
        issuer=forge.issuer,
        audience=forge.audience,
        keys={forge.key_id: key}.get,
        max_lifetime=3600,
        leeway=10,
        clock=clock,
    )


def code_at(house: House, forge: Forge, now: float, **claims: Any) -> str:
    """Return the audit code at a moment; ``ok`` where the token is valid."""
    from secure_tls.peer import parse_peer

    peer = parse_peer(house.admin.issued.certificate_pem)
    credentials = Credentials("bearer", forge.token(house.admin.thumbprint, **claims))
    try:
        authenticator(forge, lambda: now).authenticate(credentials, peer)
    except AuthenticationError as error:
        return error.code
    return "ok"


def test_J13_the_end_is_exact(house: House, forge: Forge) -> None:
    claims = {"iat": 1000, "exp": 2000}
    assert code_at(house, forge, 2009.999, **claims) == "ok"
    assert code_at(house, forge, 2010, **claims) == "expired"
    assert code_at(house, forge, 2011, **claims) == "expired"


def test_J14_the_future_is_refused_and_the_log_says_clock(house: House, forge: Forge) -> None:
    claims = {"iat": 1000, "nbf": 1000, "exp": 2000}
    assert code_at(house, forge, 990, **claims) == "ok"
    assert code_at(house, forge, 989.999, **claims) == "clock"
    assert code_at(house, forge, 989.999, **claims | {"iat": 900}) == "clock"
    assert code_at(house, forge, 990, **claims | {"nbf": 1001}) == "clock"


@pytest.mark.parametrize(
    ("audience", "served"),
    [
        ("other", False),
        ([], False),
        (7, False),
        ("secure-grp", False),
        ("secure-grpc-2", False),
        (["secure-grpc", 7], False),
        ([["secure-grpc"]], False),
        ({"secure-grpc": 1}, False),
        (["other", "secure-grpc"], True),
    ],
)
def test_J15_audience(
    house: House, forge: Forge, thumbprint: str, audience: Any, served: bool
) -> None:
    token = forge.token(thumbprint, aud=audience)
    (assert_served if served else assert_refused)(house, token)


@pytest.mark.parametrize("change", [str.upper, lambda i: i + "/", lambda i: i[:-1], lambda i: [i]])
def test_J16_an_issuer_that_differs_by_a_character_is_refused(
    house: House, forge: Forge, thumbprint: str, change: Callable[[str], Any]
) -> None:
    assert_refused(house, forge.token(thumbprint, iss=change(forge.issuer)))


@pytest.mark.parametrize("part", ["header", "payload"])
def test_J18_duplicate_members(house: House, forge: Forge, thumbprint: str, part: str) -> None:
    header = json.dumps(forge.header())
    payload = json.dumps(forge.claims(thumbprint))
    if part == "header":
        header = header[:-1] + ', "kid": ' + json.dumps(forge.key_id) + "}"
    else:
        payload = payload[:-1] + ', "sub": "users/admin"}'
    assert_refused(house, forge.sign(header.encode(), payload.encode()))


def huge(forge: Forge, thumbprint: str) -> dict[str, str]:
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    shallow_enough = b"[" * 2000 + b"]" * 2000
    return {
        "array": forge.sign(forge.header(), b"[]"),
        "deep": forge.sign(forge.header(), deep),
        "deep within the size": forge.sign(forge.header(), shallow_enough),
        "megabyte": forge.token(thumbprint, filler="x" * 1_000_000),
        "kid": forge.token(thumbprint, {"kid": "k" * 1_000_000}),
    }


def test_J19_huge_tokens_are_refused_in_under_ten_milliseconds(
    house: House, forge: Forge, thumbprint: str
) -> None:
    from secure_tls.peer import parse_peer

    peer = parse_peer(house.admin.issued.certificate_pem)
    subject = authenticator(forge, time.time)
    for name, token in huge(forge, thumbprint).items():
        took = []
        for _ in range(5):
            before = time.thread_time()
            try:
                refused = subject.authenticate(Credentials("bearer", token), peer) is None
            except AuthenticationError:
                refused = True
            took.append(time.thread_time() - before)
            assert refused, name
        assert min(took) < 0.010, (name, took)


def test_J20_broken_signatures(house: House, forge: Forge, thumbprint: str) -> None:
    good = forge.token(thumbprint)
    signing_input, _, signature = good.rpartition(".")
    raw = parts(good)[2]
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    for broken in (bytes(64), encode_dss_signature(r, s), raw[:-1], raw[:32], b"", raw + b"\0"):
        assert_refused(house, f"{signing_input}.{b64(broken)}")
    assert_refused(house, f"{signing_input}.")
    assert_refused(house, signing_input)
    flipped = raw[:-1] + bytes([raw[-1] ^ 1])
    assert_refused(house, f"{signing_input}.{b64(flipped)}")
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    assert signature


def test_J21_every_spelling_of_a_revoked_token_is_revoked(house: House, admin_token: str) -> None:
    from secure_api.tokens.v1 import token_service_pb2 as pb
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    token = house.forge.token(house.admin.thumbprint)
    signing_input, _, _ = token.rpartition(".")
    raw = parts(token)[2]
    r, s = raw[:32], int.from_bytes(raw[32:])
    twin = f"{signing_input}.{b64(r + (P256_ORDER - s).to_bytes(32))}"
    assert_served(house, twin)
    stub = TokenServiceStub(house.channel(house.admin))
    stub.RevokeToken(pb.RevokeTokenRequest(token=token), metadata=bearer(admin_token), timeout=10)
    for spelling in (token, twin, token + "=", token + "=="):
        assert_refused(house, spelling)


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "a\x00b", "' OR 1=1 --", 7, None, ["x"], {"a": 1}, True, ""]
)
def test_J22_hostile_key_ids(house: House, forge: Forge, thumbprint: str, kid: Any) -> None:
    assert_refused(house, forge.token(thumbprint, {"kid": kid}))


def test_J23_a_key_is_for_one_algorithm_only() -> None:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(ValueError, match="not one for ES256"):
        VerificationKey("kid", "ES256", public)
    with pytest.raises(ValueError, match="none of"):
        VerificationKey("kid", "HS256", public)
    weak = rsa.generate_private_key(65537, 1024).public_key()
    with pytest.raises(ValueError, match="not one for ES256"):
        VerificationKey("kid", "ES256", weak)  # type: ignore[arg-type]


def test_J24_a_token_bound_to_another_certificate(house: House, forge: Forge) -> None:
    other = house.client("other")
    assert_refused(house, forge.token(other.thumbprint))
    outcome = call(house.channel(other), metadata=bearer(forge.token(other.thumbprint)))
    assert outcome.served, "the same token over its own certificate is good"


@pytest.mark.parametrize(
    "cnf", [REMOVE, None, {}, [], "x", {"x5t#S256": None}, {"x5t#S256": ""}, {"jkt": "x"}]
)
def test_J24_a_token_bound_to_nothing(
    house: House, forge: Forge, thumbprint: str, cnf: Any
) -> None:
    assert_refused(house, forge.token(thumbprint, cnf=cnf))


def test_J25_a_bound_token_where_there_is_no_client_certificate(house: House, forge: Forge) -> None:
    subject = authenticator(forge, time.time)
    token = forge.token(house.admin.thumbprint)
    with pytest.raises(AuthenticationError) as refused:
        subject.authenticate(Credentials("bearer", token), None)
    assert refused.value.code == "cnf"
    empty = forge.token(b64(hashlib.sha256(b"").digest()))
    with pytest.raises(AuthenticationError):
        subject.authenticate(Credentials("bearer", empty), None)


@pytest.mark.parametrize("scope", ["a  b", " a", "a ", "", 7, ["a"], 'a"b', "a\nb", "a\\b"])
def test_J26_a_malformed_scope(house: House, forge: Forge, thumbprint: str, scope: Any) -> None:
    assert_refused(house, forge.token(thumbprint, scope=scope))


def test_J26_a_scope_is_parsed_exactly(house: House, forge: Forge, thumbprint: str) -> None:
    outcome = call(
        house.channel(house.admin), metadata=bearer(forge.token(thumbprint, scope="a b:c"))
    )
    assert list(outcome.responses[0].token.scopes) == ["a", "b:c"]


def test_the_reason_is_in_audit_only_and_the_claims_are_marked_unverified(
    house: House, forge: Forge, thumbprint: str, log: list[dict[str, Any]]
) -> None:
    token = forge.token(thumbprint, exp=1000, iat=900, sub="users/mallory")
    assert_refused(house, token)
    (line,) = [line for line in log if line["event"] == "call refused"]
    assert line["reason"] == "expired"
    assert line["unverified"]["sub"] == "users/mallory"
    assert "subject" not in line
    assert token not in repr(line)
    assert token.rpartition(".")[2] not in repr(line)
