"""A profile for each kind of issuer: tokens of its documented shape are accepted, others not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from secure_server import AuthenticationError, Credentials, Principal
from secure_server.auth.bulkhead import Bulkhead
from secure_server.auth.oidc import OIDC
from secure_server.auth.plugin import AuthenticatorContext, build
from secure_server.testing import Issuer
from support.forge import REMOVE

NOW = int(time.time())
AUDIENCE = "users-api"
TENANT = "8a1b2c3d-0000-4000-8000-123456789abc"

SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    # typ, issuer, claims beside iss, aud, sub, iat, exp
    "rfc9068": (
        "at+jwt",
        "https://login.example.com",
        {"client_id": "shop", "jti": "id-1", "scope": "read write", "groups": ["team-a-admins"]},
    ),
    "id_token": (
        "JWT",
        "https://dex.example.com",
        {"azp": AUDIENCE, "nonce": "n", "at_hash": "h", "email": "a@example.org"},
    ),
    "google": (
        "JWT",
        "https://accounts.google.com",
        {
            "azp": "1234567890.apps.googleusercontent.com",
            "sub": "110169484474386276334",
            "email": "robot@project.iam.gserviceaccount.com",
            "email_verified": True,
        },
    ),
    "kubernetes": (
        "",
        "https://kubernetes.default.svc.cluster.local",
        {
            "aud": [AUDIENCE],
            "sub": "system:serviceaccount:shop:billing",
            "nbf": NOW,
            "jti": "b9d1",
            "kubernetes.io": {
                "namespace": "shop",
                "node": {"name": "node-1", "uid": "u0"},
                "pod": {"name": "billing-6d4cf56db6-abcde", "uid": "u1"},
                "serviceaccount": {"name": "billing", "uid": "u2"},
                "warnafter": NOW + 1000,
            },
        },
    ),
    "github": (
        "JWT",
        "https://token.actions.githubusercontent.com",
        {
            "jti": "0b9e",
            "sub": "repo:octo-org/octo-repo:environment:prod",
            "nbf": NOW - 600,
            "ref": "refs/heads/main",
            "repository": "octo-org/octo-repo",
            "repository_owner": "octo-org",
            "workflow": "release",
            "run_id": "42",
            "environment": "prod",
        },
    ),
    "entra": (
        "JWT",
        f"https://login.microsoftonline.com/{TENANT}/v2.0",
        {
            "ver": "2.0",
            "tid": TENANT,
            "oid": "00000000-0000-0000-66f3-3332eca7ea81",
            "uti": "fqiBqXLPj0eQa82S-IYFAA",
            "azp": "11112222-bbbb-3333-cccc-4444dddd5555",
            "azpacr": "1",
            "nbf": NOW,
            "scp": "Files.Read User.Read",
            "roles": ["Data.Writer"],
        },
    ),
}
RS256 = {
    profile: Issuer(name, AUDIENCE, algorithm="RS256", typ=typ)
    for profile, (typ, name, _) in SHAPES.items()
}


def read(
    tmp_path: Path, profile: str, *, settings: dict[str, Any] | None = None, **changes: Any
) -> Principal:
    """Have a token of the profile's shape, but for the changes, read by its authenticator."""
    issuer = RS256[profile]
    claims = {"client_id": REMOVE, "jti": REMOVE} | SHAPES[profile][2] | changes
    shape = {name: value for name, value in claims.items() if value is not REMOVE}
    return authenticate(tmp_path, profile, token_of(issuer, shape, claims), settings or {})


def token_of(issuer: Issuer, shape: dict[str, Any], claims: dict[str, Any]) -> str:
    from secure_server.testing.defects import Draft

    own = {"iss": issuer.name, "aud": AUDIENCE, "sub": "alice", "iat": NOW, "exp": NOW + 3000}
    final = {k: v for k, v in (own | shape).items() if claims.get(k) is not REMOVE}
    header = {"alg": issuer._algorithm, "kid": issuer.key_id}
    if issuer._typ:
        header["typ"] = issuer._typ
    return Draft(header, final, issuer._private_key, issuer._algorithm, NOW).sign()


def authenticate(tmp_path: Path, profile: str, token: str, settings: dict[str, Any]) -> Principal:
    issuer = RS256[profile]
    (tmp_path / "jwks.json").write_text(issuer.jwks())
    model = OIDC.settings.model_validate(
        {
            "profile": profile,
            "issuer": issuer.name,
            "audience": AUDIENCE,
            "key_set": tmp_path / "jwks.json",
        }
        | settings
    )
    authenticator = build(OIDC, model, AuthenticatorContext("idp", lambda: NOW, Bulkhead(4)))
    try:
        principal = authenticator.authenticate(Credentials.parse(f"Bearer {token}"), None)
    finally:
        authenticator.close()  # type: ignore[attr-defined]
    assert principal is not None
    return principal


@pytest.mark.parametrize("profile", SHAPES)
def test_a_token_of_the_documented_shape_is_recognised(tmp_path: Path, profile: str) -> None:
    principal = read(tmp_path, profile)
    assert principal.issuer == SHAPES[profile][1]
    assert principal.subject == SHAPES[profile][2].get("sub", "alice")
    assert principal.expires_at == NOW + 3000
    assert principal.roles == frozenset(), "an issuer's groups grant no roles here"


def test_scopes_and_clients_are_where_each_profile_has_them(tmp_path: Path) -> None:
    assert read(tmp_path, "rfc9068").scopes == {"read", "write"}
    assert read(tmp_path, "entra").scopes == {"Files.Read", "User.Read"}
    assert read(tmp_path, "rfc9068").client_id == "shop"
    assert read(tmp_path, "entra").client_id == SHAPES["entra"][2]["azp"]
    assert read(tmp_path, "id_token").client_id == AUDIENCE


def test_J10_revocation_goes_by_a_claim_or_by_what_was_signed(tmp_path: Path) -> None:
    assert read(tmp_path, "rfc9068").token_id == "id-1"
    assert read(tmp_path, "entra").token_id == SHAPES["entra"][2]["uti"]
    for profile in ("id_token", "google", "kubernetes"):
        one, same = read(tmp_path, profile), read(tmp_path, profile)
        assert one.token_id == same.token_id, "another signature, the same token"
        assert one.token_id.startswith("sha256:")
        assert read(tmp_path, profile, sub=one.subject, iat=NOW - 1).token_id != one.token_id


@pytest.mark.parametrize("claim", ["exp", "aud", "sub", "iat"])
@pytest.mark.parametrize("profile", SHAPES)
def test_J10_what_every_token_has_is_demanded_of_each(
    tmp_path: Path, profile: str, claim: str
) -> None:
    with pytest.raises(AuthenticationError) as refused:
        read(tmp_path, profile, **{claim: REMOVE})
    assert refused.value.code == claim


@pytest.mark.parametrize(
    ("profile", "code", "changes"),
    [
        ("rfc9068", "jti", {"jti": REMOVE}),
        ("rfc9068", "client_id", {"client_id": REMOVE}),
        ("rfc9068", "lifetime", {"iat": NOW - 86400, "exp": NOW + 10}),
        ("id_token", "azp", {"azp": "another-client"}),
        ("id_token", "azp", {"azp": REMOVE, "aud": [AUDIENCE, "another-client"]}),
        ("google", "azp", {"azp": REMOVE}),
        ("google", "email_verified", {"email_verified": False}),
        ("google", "email_verified", {"email_verified": "true"}),
        ("google", "lifetime", {"exp": NOW + 3601}),
        ("kubernetes", "sub", {"sub": "system:serviceaccount:shop:root"}),
        ("kubernetes", "sub", {"sub": "system:serviceaccount:kube-system:billing"}),
        ("kubernetes", "kubernetes.io", {"kubernetes.io": REMOVE}),
        ("kubernetes", "kubernetes.io", {"kubernetes.io": {"namespace": "shop"}}),
        ("kubernetes", "namespace", {"kubernetes.io": {"serviceaccount": {"name": "billing"}}}),
        ("github", "jti", {"jti": REMOVE}),
        ("github", "repository", {"repository": REMOVE}),
        ("github", "repository_owner", {"repository_owner": "octo"}),
        ("github", "lifetime", {"exp": NOW + 3601}),
        ("entra", "ver", {"ver": "1.0"}),
        ("entra", "ver", {"ver": 2.0}),
        ("entra", "tid", {"tid": "another-tenant"}),
        ("entra", "uti", {"uti": REMOVE}),
        ("entra", "azp", {"azp": REMOVE}),
        ("entra", "idtyp", {"idtyp": "device"}),
        ("entra", "scp", {"scp": ["Files.Read"]}),
    ],
)
def test_J9_what_a_profile_demands(
    tmp_path: Path, profile: str, code: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(AuthenticationError) as refused:
        read(tmp_path, profile, **changes)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "typ", ["", "JWT", "at+jwt", "application/at+jwt", "AT+JWT", "refresh+jwt"]
)
@pytest.mark.parametrize("profile", SHAPES)
def test_J9_each_profile_says_which_typ(tmp_path: Path, profile: str, typ: str) -> None:
    issuer = RS256[profile]
    allowed = {
        "rfc9068": {"at+jwt", "application/at+jwt", "AT+JWT"},
        "id_token": {"", "JWT"},
        "kubernetes": {""},
    }.get(profile, {"JWT"})
    own = issuer._typ
    issuer._typ = typ
    try:
        if typ in allowed:
            assert read(tmp_path, profile).authenticator == "idp"
        else:
            with pytest.raises(AuthenticationError) as refused:
                read(tmp_path, profile)
            assert refused.value.code == "typ"
    finally:
        issuer._typ = own


def test_roles_are_those_that_were_mapped(tmp_path: Path) -> None:
    mapped = {"roles_claim": "groups", "roles": {"team-a-admins": "admin", "x": "y"}}
    assert read(tmp_path, "rfc9068", settings=mapped).roles == {"admin"}
    assert read(tmp_path, "rfc9068", settings=mapped, groups=["admin"]).roles == frozenset()
    assert read(tmp_path, "rfc9068", settings=mapped, groups="team-a-admins").roles == {"admin"}
    assert read(tmp_path, "rfc9068", settings=mapped, groups={"admin": 1}).roles == frozenset()
    nested = {"roles_claim": "realm_access.roles", "roles": {"boss": "admin"}}
    claims = {"realm_access": {"roles": ["boss", "other"]}}
    assert read(tmp_path, "rfc9068", settings=nested, **claims).roles == {"admin"}
    dotted = {"roles_claim": "[https://example.com/roles]", "roles": {"boss": "admin"}}
    claims = {"https://example.com/roles": ["boss"]}
    assert read(tmp_path, "rfc9068", settings=dotted, **claims).roles == {"admin"}


def test_another_claim_can_be_the_subject(tmp_path: Path) -> None:
    settings = {"subject_claim": "oid"}
    assert read(tmp_path, "entra", settings=settings).subject == SHAPES["entra"][2]["oid"]
    with pytest.raises(AuthenticationError) as refused:
        read(tmp_path, "entra", settings=settings, oid=7)
    assert refused.value.code == "oid"


def test_a_lifetime_can_be_set(tmp_path: Path) -> None:
    with pytest.raises(AuthenticationError) as refused:
        read(tmp_path, "rfc9068", settings={"max_lifetime": 600})
    assert refused.value.code == "lifetime"


@pytest.mark.parametrize("cnf", [{"jkt": "x"}, {"x5t#S256": "x", "jkt": "y"}, {}, None, "x", []])
def test_a_token_that_is_bound_to_something_else_is_refused(tmp_path: Path, cnf: Any) -> None:
    """A DPoP token (RFC 9449) as a bearer token is a stolen one."""
    with pytest.raises(AuthenticationError) as refused:
        read(tmp_path, "rfc9068", cnf=cnf)
    assert refused.value.code == "cnf"


def test_a_session_claim_of_another_issuer_is_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, "rfc9068", sid="of-ours").session_id == ""
