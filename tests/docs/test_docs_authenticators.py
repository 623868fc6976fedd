"""docs/authenticators.md: its tables are the code's, and what it shows works."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from test_docs_run import ROOT, blocks, clone, run

from secure_base.reloading.reloads import INTERVAL
from secure_server import AuthenticationError, AuthenticatorError, Credentials
from secure_server.auth.api_keys import APIKeysSettings, read_api_keys
from secure_server.auth.claims import Claims
from secure_server.auth.fetch import MAX_BODY_BYTES, TIMEOUT
from secure_server.auth.introspection import IntrospectionSettings
from secure_server.auth.key_source import FETCHED
from secure_server.auth.local_issuer import LEEWAY as OWN_LEEWAY
from secure_server.auth.oidc import LEEWAY, OIDC, OIDCSettings
from secure_server.auth.plugin import GROUP, AuthenticatorContext, build
from secure_server.auth.profiles import PROFILES
from secure_server.config import read_config
from secure_server.guard.refusal import RefusalReason
from secure_server.testing import Issuer, guarded_server
from secure_server.testing.defects import Draft

__all__ = ["clone"]

NAME = "docs/authenticators.md"
DOCUMENT = (ROOT / NAME).read_text(encoding="utf-8")
CONFIGURATIONS = [b.text for b in blocks(NAME) if b.text.startswith("[[authenticators]]")]
NOW = int(time.time())
POLICY = {"name": "all", "allow_rules": [{"name": "all"}]}


def section(heading: str) -> str:
    _, _, rest = DOCUMENT.partition(f"\n{heading}\n")
    assert rest, heading
    return rest.partition(f"\n{heading.split(maxsplit=1)[0]} ")[0]


def rows(heading: str) -> list[list[str]]:
    """The rows of the tables of a section, without their heads."""
    lines = [line for line in section(heading).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=lambda text: text.splitlines()[1])
def test_each_configuration_is_valid(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secure-server.toml"
    file.write_text(text)
    assert len(read_config(file).authenticators) == 1


def test_there_is_a_configuration_of_every_type_and_profile() -> None:
    shown = "\n".join(CONFIGURATIONS)
    points = entry_points(group=GROUP)
    types = {point.name for point in points if point.value.startswith("secure_server.")}
    assert set(re.findall(r'^type = "(.*)"', shown, re.MULTILINE)) == types
    assert set(re.findall(r'^profile = "(.*)"', shown, re.MULTILINE)) == set(PROFILES)


@pytest.mark.parametrize(
    ("heading", "settings"),
    [
        ("## oidc", OIDCSettings),
        ("## introspection", IntrospectionSettings),
        ("## api_key", APIKeysSettings),
    ],
)
def test_every_key_of_a_type_is_there_with_its_default(heading: str, settings: Any) -> None:
    table = {key: row for row in rows(heading) for key in names(row[0])}
    for key, field in settings.model_fields.items():
        assert key in table, key
        if isinstance(field.default, str | float):
            shown = {False: "false", True: "true"}.get(field.default, field.default)
            shown = f'"{shown}"' if isinstance(field.default, str) else shown
            assert names(table[key][1]) in ([str(shown)], []), key
            assert names(table[key][1]) or "allow_private_addresses" in table[key][0], key


def test_the_table_of_profiles_is_that_of_the_code() -> None:
    table = {names(row[0])[0]: row for row in rows("## oidc") if len(row) == 5}
    table.pop("profile", None)
    assert set(table) == set(PROFILES)
    for name, profile in PROFILES.items():
        _, typ, demanded, cap, revoked_by = table[name]
        types = {kind.lower() for kind in names(typ)} | ({""} if "none" in typ else set())
        assert types == profile.types - {"application/at+jwt"}, name
        assert set(profile.required) <= set(names(demanded)), name
        assert cap == f"{profile.max_lifetime / 3600:g} h", name
        assert revoked_by == (
            f"`{profile.revoked_by}`" if profile.revoked_by else "the signed claims"
        )


def test_the_numbers_are_those_of_the_code() -> None:
    keys = section("## Keys and outages")
    assert f"every {FETCHED.refresh:g} s, and {FETCHED.cooldown:g} s after a failure" in keys
    assert f"nothing, for {FETCHED.max_stale / 3600:g} h" in keys
    assert "reloaded within a second" in keys
    assert INTERVAL < 1
    assert f"{MAX_BODY_BYTES // 1024} KiB within {TIMEOUT:g} s" in keys.replace("\n", " ")
    assert f"differ by {OWN_LEEWAY:g}\nseconds" in section("## jwt")
    assert f"differ by {LEEWAY:g}\nseconds" in section("## oidc")


CODE_OF_ANOTHER = {
    RefusalReason.CERTIFICATE,
    RefusalReason.CREDENTIALS,
    RefusalReason.UNVERIFIABLE,
}


def codes() -> Iterator[str]:
    """Every reason of the guard, every one that an authenticator gives by a literal, and the claims
    that it reads by name.
    """
    yield from (reason.code for reason in RefusalReason if reason not in CODE_OF_ANOTHER)
    for file in (ROOT / "secure_server/auth").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            position = {
                "AuthenticationError": 0,
                "AuthenticatorUnavailable": 0,
                "text_of": 1,
                "time_of": 1,
            }.get(called)
            if position is not None and isinstance(node.args[position], ast.Constant):
                yield str(node.args[position].value)


def test_every_reason_is_explained() -> None:
    explained = {name for row in rows("## Reasons") for name in names(row[0])}
    operations = (ROOT / "docs/operations.md").read_text()
    elsewhere = {reason.code for reason in RefusalReason if f"`{reason.code}`" in operations}
    demanded = {claim for profile in PROFILES.values() for claim in profile.required}
    found = set(codes())
    assert {"kid", "bulkhead", "inactive", "revoked", "exp"} <= found
    assert (found | demanded) - elsewhere - explained == set()


ENTRA = "8a1b2c3d-0000-4000-8000-123456789abc"
TOKENS: dict[str, tuple[str, Claims, str, set[str]]] = {
    # What each provider documents of its tokens: typ, claims; the subject and roles we make of it.
    "keycloak": (
        "at+jwt",
        {
            "client_id": "shop",
            "jti": "onrtac:1",
            "azp": "shop",
            "typ": "Bearer",
            "aud": ["users-api", "account"],
            "realm_access": {"roles": ["users-admin", "offline_access"]},
        },
        "alice",
        {"admin"},
    ),
    "auth0": (
        "at+jwt",
        {
            "client_id": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja",
            "jti": "73WakrfVbNJBaAmhQtEeDv",
            "sub": "auth0|123456",
            "aud": ["https://users-api.example.com", "https://example.eu.auth0.com/userinfo"],
            "permissions": ["admin:users", "read:users"],
            "exp": NOW + 86400,
        },
        "auth0|123456",
        {"admin"},
    ),
    "okta": (
        "",
        {
            "ver": 1,
            "cid": "0oa1",
            "uid": "00u1",
            "scp": ["openid"],
            "groups": ["Everyone", "Users Admins"],
        },
        "alice",
        {"admin"},
    ),
    "dex": (
        "",
        {
            "sub": "CgcyMzQyNzQ5EgZnaXRodWI",
            "at_hash": "bi96gOXZShvlWYtal9Eqiw",
            "email": "jane@example.org",
            "email_verified": True,
            "groups": ["team-a:admins"],
            "exp": NOW + 86400,
        },
        "jane@example.org",
        {"admin"},
    ),
    "google": (
        "JWT",
        {
            "azp": "110169484474386276334",
            "sub": "110169484474386276334",
            "email": "billing@shop.iam.gserviceaccount.com",
            "email_verified": True,
        },
        "110169484474386276334",
        {"billing"},
    ),
    "cluster": (
        "",
        {
            "aud": ["users-api"],
            "sub": "system:serviceaccount:shop:billing",
            "kubernetes.io": {
                "namespace": "shop",
                "serviceaccount": {"name": "billing", "uid": "u2"},
            },
        },
        "system:serviceaccount:shop:billing",
        {"billing"},
    ),
    "github": (
        "JWT",
        {
            "sub": "repo:octo-org/octo-repo:environment:prod",
            "jti": "0b9e",
            "repository": "octo-org/octo-repo",
            "repository_owner": "octo-org",
            "workflow": "release",
        },
        "repo:octo-org/octo-repo:environment:prod",
        {"deployer"},
    ),
    "entra": (
        "JWT",
        {
            "ver": "2.0",
            "tid": ENTRA,
            "oid": "00000000-0000-0000-66f3-3332eca7ea81",
            "uti": "fqiBqXLPj0eQa82S-IYFAA",
            "azp": "11112222-bbbb-3333-cccc-4444dddd5555",
            "roles": ["Users.Admin"],
        },
        "00000000-0000-0000-66f3-3332eca7ea81",
        {"admin"},
    ),
}


def settings_of(folder: Path, name: str) -> OIDCSettings:
    (text,) = [text for text in CONFIGURATIONS if f'name = "{name}"' in text]
    file = folder / "secure-server.toml"
    file.write_text(text)
    (table,) = read_config(file).authenticators
    assert isinstance(table.settings, OIDCSettings)
    return table.settings


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_of_each_provider_becomes_whom_its_configuration_says(
    tmp_path: Path, name: str
) -> None:
    """By the settings that are shown, but for the keys, which come from a file."""
    typ, claims, subject, roles = TOKENS[name]
    settings = settings_of(tmp_path, name)
    issuer = Issuer(settings.issuer, settings.audience, algorithm="RS256")
    (tmp_path / "jwks.json").write_text(issuer.jwks())
    settings = settings.model_copy(update={"key_set": tmp_path / "jwks.json"})
    authenticator: Any = build(OIDC, settings, AuthenticatorContext(name, lambda: NOW))
    own = {"iss": settings.issuer, "aud": settings.audience, "sub": "alice"}
    times = {"iat": NOW, "exp": NOW + 3600}
    header = {"alg": "RS256", "kid": issuer.key_id} | ({"typ": typ} if typ else {})
    good = Draft(header, own | times | dict(claims), issuer._private_key, "RS256", NOW)
    credentials, foreign = (
        Credentials.parse(f"Bearer {draft.sign()}") for draft in (good, good.claiming(aud="other"))
    )
    try:
        principal = authenticator.authenticate(credentials, None)
        assert (principal.subject, principal.roles) == (subject, roles)
        with pytest.raises(AuthenticationError) as refused:
            authenticator.authenticate(foreign, None)
        assert refused.value.code == "aud"
    finally:
        authenticator.close()


def test_every_provider_has_a_token_here() -> None:
    shown = re.findall(r'^name = "(.*)"', "\n".join(CONFIGURATIONS), re.MULTILINE)
    assert sorted(shown) == sorted(TOKENS)


def test_two_that_claim_the_same_say_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(Issuer().jwks())
    tables = [
        {
            "type": "oidc",
            "name": name,
            "profile": "rfc9068",
            "issuer": "https://login.example.com",
            "audience": "users-api",
            "key_set": tmp_path / "jwks.json",
        }
        for name in ("staff", "partners")
    ]
    (shown,) = [block.text for block in blocks(NAME) if block.kind == "text"]
    with (
        pytest.raises(AuthenticatorError) as refused,
        guarded_server(print, policy=POLICY, authenticators=tables),
    ):
        pass
    assert f"{refused.value}\n" == shown


def test_the_command_makes_a_key_of_the_file_that_is_configured(clone: Path) -> None:
    (command,) = re.findall(r"<!-- api-keys -->\n```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    done = run(clone, command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sgk_")
    (key,) = read_api_keys(clone / "api-keys.toml").values()
    assert (key.owner, key.scopes) == ("ci", {"read"})


@pytest.mark.parametrize(
    ("name", "text"), re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", DOCUMENT, re.DOTALL)
)
def test_what_is_quoted_stands_in_the_example(name: str, text: str) -> None:
    assert text in (ROOT / name).read_text(encoding="utf-8")


def test_every_link_exists() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", DOCUMENT):
        file, _, anchor = target.partition("#")
        assert not file or (ROOT / "docs" / file).is_file(), target
        text = (ROOT / "docs" / file).read_text() if file and anchor else DOCUMENT
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
        assert not anchor or anchor in anchors, target
