"""JSON Web Tokens (group J) of an OpenID Connect provider, on both stacks, over TLS."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
from auth_door import STACKS, Guarded, guarded, oidc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from secure_server import AuthenticationError, AuthenticatorError, Credentials, Principal
from secure_server.auth import jws
from secure_server.auth.keys import ALGORITHMS
from secure_server.auth.oidc import LEEWAY
from secure_server.testing import DEFECTS, Issuer, Provider, running_provider
from secure_server.testing.defects import Draft
from secure_server.testing.provider import DISCOVERY, KEYS
from secure_tls.peer import Peer
from support.forge import REMOVE, b64, parts

REFUSED = ("UNAUTHENTICATED", "The credentials of this call were refused.")
DAY = 24 * 3600

ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "ES512": int(
        "1" + "F" * 64 + "FA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16
    ),
}

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
    # An external issuer's roles are not ours: without `roles_claim` the guard does not read them.
    "text_roles": "ok",
    "list_scope": "scope",
    # External issuers' tokens need not be bound, unless `certificate_bound` says so.
    "unbound": "ok",
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
    # A text in no compact serialization is no JWT; no authenticator here knows opaque tokens.
    "padded": "unclaimed",
    "respelt_signature": "malformed",
    "duplicate_member": "malformed",
    "duplicate_header_member": "malformed",
    "array_payload": "malformed",
    "oversized": "too_long",
    "json_serialization": "unclaimed",
}
"""What audit says of each defect; the caller learns nothing of it."""

NO_SPARE_BITS = {"ES384", "ES512"}
"""Algorithms whose signatures fill the last character: respelling it makes another signature."""


class Clock:
    """Stands still, so that every boundary is exact, until a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def set_right(self) -> None:
        """Start at the current time: the servers' certificates are issued now."""
        self.now = float(int(time.time()))


CLOCK = Clock()


@pytest.fixture(scope="module", autouse=True)
def _right() -> None:
    CLOCK.set_right()


@pytest.fixture(autouse=True)
def clock(_right: None) -> Iterator[Clock]:
    CLOCK.set_right()
    yield CLOCK
    CLOCK.set_right()


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, Provider]]:
    """One for each algorithm, and one of ID tokens."""
    with ExitStack() as running:
        issuers = {name: Issuer(algorithm=name, clock=CLOCK) for name in ALGORITHMS}
        issuers["id_token"] = Issuer(typ="JWT", clock=CLOCK)
        yield {
            name: running.enter_context(running_provider(issuer=issuer))
            for name, issuer in issuers.items()
        }


@pytest.fixture(scope="module", params=STACKS)
def door(request: pytest.FixtureRequest, providers: dict[str, Provider]) -> Iterator[Guarded]:
    tables = [
        oidc(one, name=name, profile="id_token" if name == "id_token" else "rfc9068")
        for name, one in providers.items()
    ]
    with guarded(request.param, *tables, issuer=Issuer(clock=CLOCK)) as door:
        yield door


@pytest.fixture
def issuer(providers: dict[str, Provider]) -> Issuer:
    """The one that signs with RS256, as most do."""
    return providers["RS256"].issuer


def draft(issuer: Issuer, **claims: Any) -> Draft:
    """A good token before it is signed; REMOVE leaves a claim out."""
    token = jws.parse(issuer.token(None))
    assert token is not None
    members = token.claims | claims
    return Draft(
        token.header,
        {name: value for name, value in members.items() if value is not REMOVE},
        issuer._private_key,
        issuer._algorithm,
        int(CLOCK.now),
    )


def code(door: Guarded, token: str, client: str = "alice") -> str:
    """What audit says of a token that must be refused, and like any other."""
    door.audit.clear()
    assert door.ask(f"Bearer {token}", client) == REFUSED
    (event,) = door.audit
    assert not event.allowed
    assert event.principal.is_anonymous
    return event.code


def served(door: Guarded, token: str, client: str = "alice") -> str:
    status, answer = door.ask(f"Bearer {token}", client)
    assert status == "OK", answer
    return answer


def authenticate(door: Guarded, token: str, peer: Peer | None = None) -> Principal:
    """Ask the authenticators alone."""
    authorization = Credentials.parse(f"Bearer {token}")
    return door.core()._recognition._authenticators.authenticate(authorization, peer)


@functools.cache
def stranger() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@functools.cache
def spoilt(issuer: Issuer, defect: str) -> str:
    """The same token for both stacks: some take a new RSA key."""
    return issuer.token(None, defect=defect)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_is_served_whichever_algorithm_signs_it(
    door: Guarded, providers: dict[str, Provider], algorithm: str
) -> None:
    issuer = providers[algorithm].issuer
    assert served(door, issuer.token(None)) == f"{algorithm} alice [] []"
    bound = issuer.token(door.thumbprint("alice"), subject="bob", roles=["r"], scopes=["s"])
    assert served(door, bound) == f"{algorithm} bob [] [s]"


def test_every_defect_has_a_code() -> None:
    assert CODES.keys() == DEFECTS.keys()


def test_each_defect_is_refused_and_audit_says_why(door: Guarded, issuer: Issuer) -> None:
    found = {}
    for defect in DEFECTS:
        token = spoilt(issuer, defect)
        if CODES[defect] == "ok":
            assert served(door, token) == "RS256 alice [] []", defect
        else:
            found[defect] = code(door, token)
            assert token not in repr(door.audit)
    assert found == {defect: reason for defect, reason in CODES.items() if reason != "ok"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_algorithm_lets_a_defect_pass(
    door: Guarded, providers: dict[str, Provider], algorithm: str
) -> None:
    codes = dict(CODES)
    if algorithm in NO_SPARE_BITS:
        codes["respelt_signature"] = "signature"
    found = {}
    for defect in codes:
        try:
            authenticate(door, spoilt(providers[algorithm].issuer, defect))
        except AuthenticationError as error:
            found[defect] = error.code
        else:
            found[defect] = "ok"
    assert found == codes


def test_J1_alg_none(door: Guarded, issuer: Issuer) -> None:
    one = draft(issuer)
    for unsigned in (
        *(one.headed(alg=alg) for alg in ("none", "NoNe", "NONE", "", None, 1, ["RS256"])),
        one.without_header("alg"),
    ):
        assert code(door, unsigned.sign()) == "alg"
        assert code(door, unsigned.signing_input() + ".") == "alg"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_J2_hmac_keyed_with_the_public_key(door: Guarded, issuer: Issuer, alg: str) -> None:
    public, spki = issuer._private_key.public_key(), serialization.PublicFormat
    secrets = [
        public.public_bytes(serialization.Encoding.PEM, spki.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.PEM, spki.SubjectPublicKeyInfo).strip(),
        public.public_bytes(serialization.Encoding.PEM, spki.PKCS1),
        public.public_bytes(serialization.Encoding.DER, spki.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.DER, spki.PKCS1),
        issuer.jwks().encode(),
        json.dumps(json.loads(issuer.jwks())["keys"][0]).encode(),
        b"",
    ]
    signing_input = draft(issuer).headed(alg=alg).signing_input()
    for secret in secrets:
        signature = hmac.digest(secret, signing_input.encode(), f"sha{alg[2:]}")
        assert code(door, f"{signing_input}.{b64(signature)}") == "alg"


def test_J3_another_keys_type_under_an_allowed_alg(
    door: Guarded, providers: dict[str, Provider], issuer: Issuer
) -> None:
    signing_input = draft(issuer).signing_input()
    for algorithm in ("ES256", "EdDSA"):
        other = draft(providers[algorithm].issuer)
        token = f"{signing_input}.{b64(other.signature(signing_input))}"
        assert code(door, token) == "signature"


def test_J4_another_algorithm_than_the_keys_own_even_by_the_right_key(
    door: Guarded, providers: dict[str, Provider], issuer: Issuer
) -> None:
    one = draft(issuer)
    pss = Draft(one.headed(alg="PS256").header, one.claims, one.private_key, "PS256", one.now)
    assert code(door, pss.sign()) == "alg"
    other = draft(providers["ES256"].issuer)
    rs256 = Draft(other.headed(alg="RS256").header, other.claims, stranger(), "RS256", one.now)
    assert code(door, rs256.sign()) == "alg"
    for alg in ("ES512", "rs256", "RS256 ", "RS384", "ES256K"):
        assert code(door, one.headed(alg=alg).sign()) == "alg"


@pytest.mark.parametrize("parameter", ["jwk", "jku", "x5u", "x5c"])
def test_J5_keys_inside_a_token_are_never_trusted_and_never_fetched(
    door: Guarded, providers: dict[str, Provider], parameter: str
) -> None:
    provider = providers["RS256"]
    one = draft(provider.issuer)
    value: Any = {
        "jwk": jwt.get_algorithm_by_name("RS256").to_jwk(stranger().public_key(), as_dict=True),
        "jku": f"{provider.url}/theirs",
        "x5u": f"{provider.url}/theirs",
        "x5c": [base64.b64encode(b"certificate").decode()],
    }[parameter]
    one = Draft(one.header, one.claims, stranger(), "RS256", one.now).headed(**{parameter: value})
    assert code(door, one.sign()) == "signature"
    assert code(door, one.headed(kid="theirs").sign()) == "kid"
    assert code(door, one.without_header("kid").sign()) == "kid"
    assert set(provider.requests) <= {DISCOVERY, KEYS}


def test_J6_J7_unknown_critical_extensions_are_refused(door: Guarded, issuer: Issuer) -> None:
    for header in (
        *({"crit": crit, "made-up": 1} for crit in (["exp"], ["made-up"], [], "exp", None)),
        *({"b64": value} for value in (False, True, None)),
        *({"b64": value, "crit": ["b64"]} for value in (False, True)),
    ):
        assert code(door, draft(issuer).headed(**header).sign()) == "crit", header


def test_J8_other_serializations(door: Guarded, issuer: Issuer) -> None:
    good = issuer.token(None)
    header, payload, signature = good.split(".")
    general = {"payload": payload, "signatures": [{"protected": header, "signature": signature}]}
    assert code(door, f"{header}.AAAA.AAAA.{payload}.{signature}") == "unclaimed"  # a JWE
    assert code(door, json.dumps(general, separators=(",", ":"))) == "unclaimed"
    assert code(door, b64(json.dumps(general).encode())) == "unclaimed"
    assert code(door, draft(issuer).headed(cty="JWT").sign(claims=good)) == "malformed"
    assert code(door, f"{header}..{signature}") == "unclaimed"
    assert code(door, good.replace(".", "..", 1)) == "unclaimed"


def test_J9_another_typ(door: Guarded, issuer: Issuer) -> None:
    one = draft(issuer)
    assert code(door, one.without_header("typ").sign()) == "typ"
    for typ in (
        "JWT",
        "rt+jwt",
        "id+jwt",
        "at+jwt ",
        "",
        None,
        ["at+jwt"],
        "at-jwt",
        "\uff41t+jwt",
    ):
        assert code(door, one.headed(typ=typ).sign()) == "typ", typ


def test_J9_each_profile_has_its_own_typ(door: Guarded, providers: dict[str, Provider]) -> None:
    for typ in ("AT+JWT", "application/at+jwt"):
        served(door, draft(providers["RS256"].issuer).headed(typ=typ).sign())
    identity = providers["id_token"].issuer
    assert served(door, identity.token(None)) == "id_token alice [] []"
    assert code(door, draft(identity).headed(typ="at+jwt").sign()) == "typ"


def test_J10_a_required_claim_is_missing_or_empty(door: Guarded, issuer: Issuer) -> None:
    for claim in ("exp", "iss", "aud", "sub", "iat", "jti", "client_id"):
        expected = "unclaimed" if claim == "iss" else claim
        for value in (REMOVE, None, "", [], {}, False):
            assert code(door, draft(issuer, **{claim: value}).sign()) == expected, (claim, value)


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
def test_J11_a_time_that_is_no_number_is_refused(door: Guarded, issuer: Issuer, claim: str) -> None:
    texts = ['"9999999999"', "true", "1e400", "1" + "0" * 30, "1" * 4000, "-1", "0", "[]", "null"]
    texts += ["NaN", "Infinity", "-Infinity", "0x7fffffff", "1" * 5000, "01"]
    claims = json.dumps(draft(issuer, **{claim: 123456789}).claims)
    for text in texts:
        token = draft(issuer).sign(claims=claims.replace("123456789", text))
        assert code(door, token) in {claim, "malformed"}, text


def test_J12_a_lifetime_over_the_profiles_cap(door: Guarded, issuer: Issuer) -> None:
    now = int(CLOCK.now)
    served(door, issuer.token(None, iat=now, exp=now + DAY))
    assert code(door, issuer.token(None, iat=now, exp=now + DAY + 1)) == "lifetime"
    assert code(door, issuer.token(None, iat=now - DAY, exp=now + 0.5)) == "lifetime"


def test_J13_the_end_is_exact(door: Guarded, issuer: Issuer, clock: Clock) -> None:
    end = int(clock.now) + 600
    token = issuer.token(None, exp=end)
    for moment in (end - 1, end, end + LEEWAY - 1, end + LEEWAY - 0.001):
        clock.now = moment
        served(door, token)
    for moment in (end + LEEWAY, end + LEEWAY + 1):
        clock.now = moment
        assert code(door, token) == "expired"


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_J14_the_future_is_refused_and_audit_says_clock(
    door: Guarded, issuer: Issuer, clock: Clock, claim: str
) -> None:
    start = int(clock.now) + 600
    token = issuer.token(None, exp=start + 600, **{claim: start})
    for moment in (start - LEEWAY - 1, start - LEEWAY - 0.001):
        clock.now = moment
        assert code(door, token) == "clock"
        assert "clocks" in door.audit[-1].detail
    for moment in (start - LEEWAY, start):
        clock.now = moment
        served(door, token)


def test_J15_audience(door: Guarded, issuer: Issuer) -> None:
    ours = issuer.audience
    for other in (
        *("other", ours[:-1], ours + "2", ours.upper(), f" {ours}", f"{ours},other"),
        *([], {}, {ours: 1}, 7, True, None),
        *([ours, 7], [[ours]], [ours[:-1]], ["other", f"{ours} "]),
    ):
        assert code(door, issuer.token(None, aud=other)) == "aud", other
    for mine in (ours, [ours], ["other", ours], [ours, "other"]):
        served(door, issuer.token(None, aud=mine))


def test_J16_an_issuer_that_differs_by_a_character_is_refused(
    door: Guarded, issuer: Issuer
) -> None:
    name = issuer.name
    for other in (
        *(name.upper(), name + "/", name[:-1], name + "#", name.replace("https", "http")),
        *([name], {name: 1}, f" {name}", name + "\u0000", name.replace("localhost", "LOCALHOST")),
    ):
        assert code(door, issuer.token(None, iss=other)) == "unclaimed", other


@pytest.mark.parametrize("stack", STACKS)
def test_J17_the_same_subject_of_another_issuer_is_another_principal(
    providers: dict[str, Provider], stack: str
) -> None:
    ours, others = providers["RS256"], providers["ES256"]
    name = f"{ours.issuer.name}/alice"
    rule = {"name": "alice", "source": {"request_principals": [name]}}
    policy = {"name": "auth", "allow_rules": [rule]}
    tables = [oidc(ours, name="ours"), oidc(others, name="others")]
    with guarded(stack, *tables, policy=policy, issuer=Issuer(clock=CLOCK)) as door:
        assert served(door, ours.issuer.token(None)) == "ours alice [] []"
        for claims in ({}, {"sub": name}, {"client_id": name}, {"azp": ours.issuer.name}):
            status, _ = door.ask(f"Bearer {others.issuer.token(None, **claims)}")
            assert status == "PERMISSION_DENIED"
            assert door.audit[-1].principal.issuer == others.issuer.name
        # An issuer vouches for itself alone, whichever name and key it gives.
        theirs = draft(others.issuer, iss=ours.issuer.name)
        assert code(door, theirs.sign()) == "kid"
        assert code(door, theirs.headed(kid=ours.issuer.key_id).sign()) == "alg"
        named = theirs.headed(kid=ours.issuer.key_id, alg="RS256")
        assert code(door, named.sign()) == "signature"


def test_J18_duplicate_members_at_any_depth(door: Guarded, issuer: Issuer) -> None:
    one = draft(issuer)
    claims, header = json.dumps(one.claims), json.dumps(one.header)
    for member in ('"sub":"alice"', '"act":{"sub":"a","sub":"b"}', '"s\\u0075b":"alice"'):
        assert code(door, one.sign(claims=f"{claims[:-1]},{member}}}")) == "malformed"
    for member in (f'"kid":"{issuer.key_id}"', '"x":[{"a":1,"a":1}]'):
        assert code(door, one.sign(header=f"{header[:-1]},{member}}}")) == "malformed"


def monsters(issuer: Issuer) -> dict[str, str]:
    one = draft(issuer)
    claims = json.dumps(one.claims)[:-1]
    return {
        "array": one.sign(claims="[]"),
        "deep": one.sign(claims='{"a":' * 100_000 + "1" + "}" * 100_000),
        "deep within the size": one.sign(claims=f'{claims},"a":{"[" * 1200}{"]" * 1200}}}'),
        "deep header within the size": one.sign(header="[" * 3000),
        "megabyte": one.claiming(filler="x" * 1_000_000).sign(),
        "kid": one.headed(kid="k" * 1_000_000).sign(),
        "megabyte of dots": "." * 1_000_000,
        "megabyte of one part": "A" * 1_000_000,
    }


def test_J19_huge_tokens_are_refused_in_under_ten_milliseconds(
    door: Guarded, issuer: Issuer
) -> None:
    for name, token in monsters(issuer).items():
        took = []
        for _ in range(5):
            before = time.thread_time()
            with pytest.raises(AuthenticationError):
                authenticate(door, token)
            took.append(time.thread_time() - before)
        assert min(took) < 0.010, (name, took)


def test_J19_huge_tokens_are_refused_by_the_guard_and_others_are_served(
    door: Guarded, issuer: Issuer
) -> None:
    sent = monsters(issuer)
    for name in ("array", "deep within the size", "deep header within the size"):
        assert code(door, sent[name]) == "malformed", name
    # gRPC itself refuses metadata over its limit.
    assert door.ask(f"Bearer {sent['megabyte']}")[0] == "RESOURCE_EXHAUSTED"
    served(door, issuer.token(None))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_J20_broken_signatures(
    door: Guarded, providers: dict[str, Provider], algorithm: str
) -> None:
    token = providers[algorithm].issuer.token(None)
    signing_input, _, _ = token.rpartition(".")
    raw = parts(token)[2]
    half = len(raw) // 2
    r, s = int.from_bytes(raw[:half]), int.from_bytes(raw[half:])
    zeros, ones = bytes(half), b"\xff" * half
    for broken in (
        *(bytes(len(raw)), b"\xff" * len(raw), zeros[1:] + b"\x01" + zeros[1:] + b"\x01"),
        *(raw[:half] + zeros, zeros + raw[half:], raw[:half] + ones, raw[half:] + raw[:half]),
        *(encode_dss_signature(r, s), raw[:-1], raw[1:], raw[:half], b"", b"\x00"),
        *(raw + b"\x00", b"\x00" + raw, raw + raw, raw[:-1] + bytes([raw[-1] ^ 1])),
    ):
        assert code(door, f"{signing_input}.{b64(broken)}") == "signature"
    assert code(door, signing_input) == "unclaimed"


class Revoked:
    """Tokens that were valid before they were revoked."""

    generation = 1
    is_current = True

    def __init__(self, *token_ids: str) -> None:
        self.token_ids = token_ids

    def is_revoked(self, principal: Principal) -> bool:
        return principal.token_id in self.token_ids


@pytest.mark.parametrize("name", ["ES256", "ES384", "ES512", "id_token"])
def test_J21_every_spelling_of_a_revoked_token_is_revoked(
    door: Guarded,
    providers: dict[str, Provider],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Also for tokens without an ID, revoked by the digest of what was signed."""
    issuer = providers[name].issuer
    token = issuer.token(None)
    signing_input, _, signature = token.rpartition(".")
    raw = parts(token)[2]
    half = len(raw) // 2
    s = ORDERS[issuer._algorithm] - int.from_bytes(raw[half:])
    twin = f"{signing_input}.{b64(raw[:half] + s.to_bytes(half))}"
    assert twin != token
    token_id = authenticate(door, token).token_id
    assert authenticate(door, twin).token_id == token_id
    assert token_id.startswith("sha256:") == (name == "id_token")
    assert hashlib.sha256(token.encode()).hexdigest() not in token_id
    served(door, token)
    served(door, twin)
    monkeypatch.setattr(door.core()._recognition, "_revocations", Revoked(token_id))
    assert [code(door, one) for one in (token, twin)] == ["revoked", "revoked"]
    for respelt in (f"{token}=", f"{token}==", f"{token}.", f"{signing_input}.{signature}A"):
        assert code(door, respelt) in {"unclaimed", "malformed", "signature"}


def test_J22_hostile_key_ids_are_looked_up_in_the_key_set_alone(
    door: Guarded, providers: dict[str, Provider]
) -> None:
    provider = providers["RS256"]
    one = draft(provider.issuer)
    for kid in (
        *("../../etc/passwd", "a\x00b", "' OR 1=1 --", "https://evil.invalid", "", "k" * 4000),
        *(7, None, ["x"], {}, True, "\ud83d\ude00"),
    ):
        assert code(door, one.headed(kid=kid).sign()) == "kid", kid
    assert set(provider.requests) <= {DISCOVERY, KEYS}


def jwk_of(key: Any, algorithm: str, **members: Any) -> dict[str, Any]:
    return {
        **jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True),
        "kid": "weak",
        **members,
    }


def roca() -> dict[str, Any]:
    vectors = Path(__file__).parents[1] / "vectors" / "wycheproof" / "json_web_key_test.json"
    groups = json.loads(vectors.read_text())["testGroups"]
    (group,) = [group for group in groups if group["comment"] == "jws_rsa_roca_key"]
    return {**group["public"]["keys"][0], "kid": "weak"}


P256 = ec.generate_private_key(ec.SECP256R1())

WEAK: dict[str, tuple[Any, str]] = {
    "RSA of 1024 bits": (
        lambda: jwk_of(rsa.generate_private_key(65537, 1024).public_key(), "RS256"),
        "has 1024 bits; RSA keys have 2048 to 8192",
    ),
    "ROCA": (roca, "of a kind that can be factored"),
    "the exponent 3": (
        lambda: jwk_of(
            rsa.RSAPublicNumbers(3, stranger().public_key().public_numbers().n).public_key(),
            "RS256",
        ),
        "has the public exponent 3, less than 65537",
    ),
    "a shared secret": (
        lambda: {"kty": "oct", "kid": "weak", "k": b64(b"x" * 64), "alg": "HS256"},
        "it is a secret, which only its issuer may have",
    ),
    "a private key": (lambda: jwk_of(P256, "ES256"), "it is a secret"),
    "for encryption": (
        lambda: jwk_of(P256.public_key(), "ES256", use="enc"),
        "its `use` is not sig",
    ),
    "for signing only": (
        lambda: jwk_of(P256.public_key(), "ES256", key_ops=["sign"]),
        "its `key_ops` do not include verify",
    ),
    "of another type than its alg": (
        lambda: jwk_of(P256.public_key(), "ES256", alg="RS256"),
        "not of the type of RS256",
    ),
    "no name": (lambda: jwk_of(P256.public_key(), "ES256", kid=""), "it has no `kid`"),
}


@pytest.mark.parametrize("case", WEAK)
def test_J23_a_static_key_that_must_not_verify_does_not_start(
    providers: dict[str, Provider], tmp_path: Path, case: str
) -> None:
    make, reason = WEAK[case]
    good = json.loads(providers["ES256"].issuer.jwks())["keys"]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [*good, make()]}))
    table = oidc(providers["ES256"], key_set=path)
    with pytest.raises(AuthenticatorError) as refused, guarded("threads", table):
        pass
    message = str(refused.value)
    assert message.startswith(f"The authenticator 'oidc': {path}: Key 2, ")
    assert reason in message
    assert ("'weak'" in message) == (case != "no name")
    assert message.endswith("Take it out of the file.")


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(("bits", "told"), [(1024, "kid"), (2040, "kid"), (2048, "ok")])
def test_J23_a_token_signed_by_a_weak_key_of_a_key_set_is_refused(
    stack: str, bits: int, told: str
) -> None:
    """Checks the outcome, not the message: the key must count as absent."""
    issuer = Issuer(algorithm="RS256", clock=CLOCK)
    issuer._private_key = rsa.generate_private_key(65537, bits)
    issuer._jwks.append(jwk_of(issuer._private_key.public_key(), "RS256", use="sig", alg="RS256"))
    issuer.key_id = "weak"
    with (
        running_provider(issuer=issuer) as provider,
        guarded(stack, oidc(provider), issuer=Issuer(clock=CLOCK)) as door,
    ):
        assert door.code(f"Bearer {issuer.token(None)}") == told


@pytest.mark.parametrize("stack", STACKS)
def test_J23_a_static_file_of_good_keys_is_enough(
    providers: dict[str, Provider], tmp_path: Path, stack: str
) -> None:
    issuer = providers["RS256"].issuer
    path = tmp_path / "keys.json"
    path.write_text(issuer.jwks())
    table = oidc(providers["RS256"], key_set=path)
    providers["RS256"].requests.clear()
    with guarded(stack, table, issuer=Issuer(clock=CLOCK)) as door:
        served(door, issuer.token(None))
        assert code(door, issuer.token(None, defect="unknown_kid")) == "kid"
    assert providers["RS256"].requests == []


def test_J24_a_bound_token_is_good_over_its_own_certificate_alone(
    door: Guarded, issuer: Issuer
) -> None:
    bound = issuer.token(door.thumbprint("alice"))
    served(door, bound, "alice")
    assert code(door, bound, "bob") == "cnf"
    served(door, bound, "alice")
    for cnf in (
        *(None, {}, [], "x", {"x5t#S256": None}, {"x5t#S256": ""}, {"x5t#S256": ["x"]}),
        *({"jkt": "x"}, {"x5t#S256": door.thumbprint("alice"), "jkt": "x"}, {"kid": "x"}),
        *({"x5t#S256": door.thumbprint("alice") + "="}, {"x5t": door.thumbprint("alice")}),
    ):
        assert code(door, issuer.token(None, cnf=cnf)) == "cnf", cnf


@pytest.mark.parametrize("stack", STACKS)
def test_J24_where_tokens_must_be_bound_one_that_is_not_is_refused(
    providers: dict[str, Provider], stack: str
) -> None:
    provider = providers["RS256"]
    table = oidc(provider, certificate_bound=True)
    with guarded(stack, table, issuer=Issuer(clock=CLOCK)) as door:
        assert code(door, provider.issuer.token(None)) == "cnf"
        assert code(door, spoilt(provider.issuer, "unbound")) == "cnf"
        bound = provider.issuer.token(door.thumbprint("alice"))
        served(door, bound, "alice")
        assert code(door, bound, "bob") == "cnf"


def test_J25_a_bound_token_where_there_is_no_client_certificate(
    door: Guarded, issuer: Issuer
) -> None:
    for thumbprint in (door.thumbprint("alice"), b64(hashlib.sha256(b"").digest())):
        with pytest.raises(AuthenticationError) as refused:
            authenticate(door, issuer.token(thumbprint), None)
        assert refused.value.code == "cnf"


def test_J26_a_scope_is_parsed_exactly_or_refused(door: Guarded, issuer: Issuer) -> None:
    for scope in ("a  b", " a", "a ", "", 7, True, ["a"], {"a": 1}, 'a"b', "a\nb", "a\\b", "é"):
        assert code(door, issuer.token(None, scope=scope)) == "scope", scope
    assert served(door, issuer.token(None, scope="b:c a")) == "RS256 alice [] [a,b:c]"
    assert served(door, issuer.token(None, scope=None)) == "RS256 alice [] []"
    assert served(door, issuer.token(None, scope="A,b a")) == "RS256 alice [] [A,b,a]"
