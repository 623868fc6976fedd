"""Every key of the configuration has an effect in each way of starting, or is refused there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from check_site import SHIPPED, Site, authority, crl, issuer, server
from pydantic import BaseModel
from sqlalchemy import select

from secure_api.tokens.v1 import token_service_pb2
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_server import Guard
from secure_server.app.lifecycle import Server
from secure_server.config import Config, ConfigError, read_config
from secure_server.config_uses import GUARD, SERVICE, Use
from secure_server.limits import Limits
from secure_server.sections import ServerSection
from secure_server.store.schema import sessions
from support.house import DEADLINE, PASSWORD, running_house
from support.running import Installation
from support.second import connected, second_server


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """``section.key``, and the names of what is no section."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


ALL_KEYS = sorted(keys_of(Config))

TABLES: dict[str, dict[str, Any]] = {
    "server": {
        "listen": "[::1]:0",
        "grace": 7,
        "retire": 70.0,
        "reflection": False,
        "door_threads": 5,
        "stream_threads": 6,
        "max_message_bytes": 4321,
    },
    "tls": {
        "certificate": "mine.pem",
        "private_key": "mine.key",
        "client_ca": "theirs.pem",
        "crl": "crl.pem",
        "stale_crl": "refuse",
        "trust_bundles": {"partner.example": "partner.pem"},
        "trust_domains": ["example.org", "second.example"],
        "minimum_version": "1.2",
        "allow_readable_private_key": True,
    },
    "tokens": {
        "issuer": "https://issuer.example",
        "audience": "another",
        "signing_key": "keys/signing.pem",
        "signing_key_passphrase_file": "passphrase",
        "signing_key_lifetime": 7200,
        "signing_key_publishing": 60,
        "key_set": "jwks.json",
        "access_token_lifetime": 123,
        "session_idle_lifetime": 4567,
        "session_lifetime": 5678,
    },
    "store": {"url": "sqlite:///other/s.db", "max_feed_staleness": 9},
    "policy": {"file": "policy.json"},
    "http": {"listen": "127.0.0.1:0"},
    "log": {"format": "json", "level": "error"},
}
"""For each key of a section a value that is not the default."""

LISTED = ("authenticators", "workloads")
LISTS = """
[[authenticators]]
type = "jwt"
name = "mine"
[[authenticators]]
type = "certificate"
[[workloads]]
spiffe_id = "spiffe://example.org/client/demo"
roles = ["reader"]
"""


def shown_by_a_guard(guard: Guard) -> dict[str, bool]:
    """Whether the value of each key has reached a guard that is made of all of them."""
    tls = guard._tls.value
    files, trust = tls.files, tls.trust
    options = dict(guard.options())
    own, by_certificate = guard.core._recognition._authenticators.members
    pool = guard.thread_pool()
    pool.shutdown()
    return {
        "server.retire": options["grpc.max_connection_age_ms"] == 35_000,
        "server.door_threads": pool._max_workers == 5,
        "server.stream_threads": guard.streams._executor._max_workers == 6,
        "server.max_message_bytes": options["grpc.max_receive_message_length"] == 4321,
        "tls.certificate": files.certificate_chain == server().certificate_pem,
        "tls.private_key": files.private_key == server().private_key_pem,
        "tls.client_ca": files.authorities == (authority().certificate,),
        "tls.crl": trust.revoked is not None,
        "tls.stale_crl": trust.refuse_stale_lists,
        "tls.trust_bundles": set(trust.bundles) == {"partner.example"},
        "tls.trust_domains": trust.admits("second.example"),
        "tls.minimum_version": tls.minimum_version == "1.2",
        # The key is readable: without the setting there would be no guard.
        "tls.allow_readable_private_key": True,
        "tokens.issuer": "of https://issuer.example for" in own.check(),
        "tokens.audience": "for another," in own.check(),
        "authenticators": (own.name, by_certificate.name) == ("mine", "certificate"),
        "workloads": "; 1 of them" in by_certificate.check(),
        "policy.file": guard.core._authorization._policy.value.name == "mine",
    }


def shown_by_a_server(built: Server, folder: Path) -> dict[str, bool]:
    """The same of a server."""
    signing_key = folder / "keys/signing.pem"
    return shown_by_a_guard(built._guard) | {
        "server.listen": built.address.startswith("[::1]:"),
        "server.grace": built._listeners._grace == 7,
        "server.reflection": len(built._service.servicers.add) == 3,
        "tokens.signing_key": signing_key.exists(),
        "tokens.signing_key_passphrase_file": b"ENCRYPTED" in signing_key.read_bytes(),
        "tokens.signing_key_lifetime": built._service.keys._lifetime == 7200,
        "tokens.signing_key_publishing": built._service.keys._publishing == 60,
        "store.url": (folder / "other/s.db").exists(),
        "store.max_feed_staleness": built._service.revocations._max_staleness == 9,
        "http.listen": built.http_address.startswith("127.0.0.1:"),
    }


LIFETIMES = ("access_token_lifetime", "session_idle_lifetime", "session_lifetime")
TESTED_BELOW = (*(f"tokens.{name}" for name in LIFETIMES), "log.format", "log.level")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    site = Site(tmp_path, own=True)
    site.write("mine.pem", server().certificate_pem)
    site.write("mine.key", server().private_key_pem).chmod(0o644)
    site.write("theirs.pem", authority().certificate_pem)
    site.write("partner.pem", authority("partner.example").certificate_pem)
    site.write("crl.pem", crl(authority()))
    site.write("passphrase", "a passphrase of more than thirty-two characters")
    site.write("policy.json", json.dumps(json.loads(SHIPPED) | {"name": "mine"}))
    for name in ("server.pem", "server.key", "ca.pem"):
        (tmp_path / name).unlink()  # what has the name of a default is not there
    return tmp_path


def written(folder: Path, use: Use) -> Path:
    """A file that sets every key for which there is a use."""
    lines = []
    for section, values in TABLES.items():
        lines.append(f"[{section}]")
        for key, value in values.items():
            if f"{section}.{key}" not in use.refused:
                lines.append(f"{key} = {as_toml(value)}")
    file = folder / "server.toml"
    file.write_text("\n".join(lines) + LISTS)
    return file


def as_toml(value: object) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items()) + " }"
        )
    return json.dumps(value)


def test_a_value_that_is_not_the_default_stands_here_for_every_key() -> None:
    """A new key of the configuration fails here first."""
    assert sorted([*(f"{s}.{k}" for s, keys in TABLES.items() for k in keys), *LISTED]) == ALL_KEYS
    for section, values in TABLES.items():
        fields = Config.model_fields[section].annotation.model_fields
        assert [key for key, value in values.items() if fields[key].default == value] == []


def test_each_key_reaches_the_identity_service_or_is_refused(folder: Path) -> None:
    built = Server(read_config(written(folder, SERVICE)))
    try:
        shown = shown_by_a_server(built, folder)
    finally:
        built.stop()
    assert [key for key, reached in shown.items() if not reached] == []
    assert sorted([*shown, *SERVICE.refused, *TESTED_BELOW]) == ALL_KEYS


def test_each_key_reaches_a_guard_of_ones_own_or_is_refused(folder: Path) -> None:
    guard = Guard.from_config(written(folder, GUARD))
    try:
        shown = shown_by_a_guard(guard)
    finally:
        guard.close()
    shown["tokens.key_set"] = (
        guard.core._recognition._authenticators.members[0]._own.keys(issuer().key_id) is not None
    )
    assert [key for key, reached in shown.items() if not reached] == []
    assert sorted([*shown, *GUARD.refused]) == ALL_KEYS
    assert set(GUARD.without_key_set) == {"tokens.issuer", "tokens.audience"}


@pytest.mark.parametrize(
    ("use", "key"),
    [(use, key) for use in (SERVICE, GUARD) for key in (*use.refused, *use.without_key_set)],
    ids=lambda value: value if isinstance(value, str) else value.name.split()[0].strip("`"),
)
def test_what_is_refused_is_refused_from_the_file_and_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, use: Use, key: str
) -> None:
    section, _, name = key.partition(".")
    value = TABLES[section][name]
    file = folder / "one.toml"
    reason = {**use.refused, **use.without_key_set}[key]
    file.write_text(f"[{section}]\n{name} = {as_toml(value)}\n")
    with pytest.raises(ConfigError) as refused:
        read_config(file, use)
    assert str(refused.value) == f"{file}:2: {key} is not for {use.name}: {reason}."
    file.write_text("")
    variable = f"SECURE_SERVER_{section}__{name}".upper()
    monkeypatch.setenv(variable, value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(ConfigError) as refused:
        read_config(file, use)
    assert str(refused.value) == f"environment: {variable} is not for {use.name}: {reason}."


def test_the_lifetimes_are_those_of_what_a_log_in_makes(tmp_path: Path) -> None:
    lives = {name: TABLES["tokens"][name] for name in LIFETIMES}
    with (
        running_house(tmp_path) as house,
        second_server(house, tokens=lives) as second,
        connected(house, second, house.admin) as channel,
    ):
        house.first_log_in()
        request = token_service_pb2.LoginRequest(user_name="admin", password=PASSWORD)
        issued = TokenServiceStub(channel).Login(request, timeout=DEADLINE)
        claims = jwt.decode(issued.access_token, options={"verify_signature": False})
        with second._service.database.read() as connection:
            made = sessions.c.create_time
            session = connection.execute(select(sessions).order_by(made.desc())).first()
    assert session is not None
    assert claims["exp"] - claims["iat"] == 123
    assert session.expire_time - session.create_time == 4567
    assert session.end_time - session.create_time == 5678


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("level", ["info", "error"])
def test_the_log_of_a_server_has_the_form_and_the_level(
    tmp_path: Path, form: str, level: str
) -> None:
    names = {"SECURE_SERVER_LOG__FORMAT": form, "SECURE_SERVER_LOG__LEVEL": level}
    process = Installation(tmp_path, environment=names).start()
    assert process.stop() == 0
    lines = [line for line in process.log.splitlines() if "serving" in line]
    assert len(lines) == (1 if level == "info" else 0)
    assert all(line.startswith("{") == (form == "json") for line in lines)


def test_the_limits_of_a_guard_are_by_default_those_of_the_configuration() -> None:
    assert Limits() == ServerSection().limits
