"""`secure-server check --own-servicer` and ``Guard.from_config`` say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_rows import (
    PARTNER,
    authenticator,
    in_turn,
    logger,
    removed,
    replaced,
    table,
    tls,
    tokens,
)
from check_site import Prepare, Site, aged, agree, authority, crl

from secure_server.auth.api_keys import APIKeyAuthenticator
from secure_server.config import ConfigError, read_config, read_guard_config
from secure_server.guard.check import check_guard

NO_TOKENS = ""


def without_tokens(site: Site) -> None:
    site.tokens = NO_TOKENS


def oidc(**settings: object) -> Prepare:
    return in_turn(
        without_tokens,
        authenticator(
            type="oidc", profile="rfc9068", issuer="https://a.example", audience="a", **settings
        ),
    )


GOOD: dict[str, Prepare] = {
    "tokens of the identity service": lambda site: None,
    "limits of its own": table("[server]\ndoor_threads = 4\nstream_threads = 9\nretire = 60\n"),
    "tokens of an issuer": oidc(key_set="jwks.json"),
    "API keys alone": in_turn(
        without_tokens,
        replaced("keys.toml", ""),
        authenticator(type="api_key", file="keys.toml"),
    ),
    "certificates alone": in_turn(
        without_tokens,
        authenticator(type="certificate"),
        table('[[workloads]]\nspiffe_id = "spiffe://example.org/client/demo"\n'),
    ),
    "a list and a partner": tls(
        'crl = "crl.pem"\n' + PARTNER,
        crl_pem=crl(authority()),
        partner_pem=authority("partner.example").certificate_pem,
    ),
    "an audit file": logger("file_logger", path="audit.log"),
    "tables without keys": table("[store]\n[http]\n[log]\n[server]\n"),
}

WARNED: dict[str, Prepare] = {
    "a list that is late": tls('crl = "crl.pem"\n', crl_pem=crl(aged(40))),
    "an issuer that does not answer": oidc(
        jwks_uri="https://127.0.0.1:1/", allow_private_addresses=True
    ),
}

BROKEN: dict[str, tuple[Prepare, str]] = {
    "no policy is named": (lambda site: setattr(site, "tables", ""), "policy.file is missing"),
    "no policy": (removed("policy.json"), "cannot read the policy"),
    "a policy that does not parse": (replaced("policy.json", "{"), "policy.json"),
    "an audit file in no folder": (logger("file_logger", path="none/a.log"), "cannot be written"),
    "no key set is named": (without_tokens, "as [tokens] key_set"),
    "no key set": (removed("jwks.json"), "jwks.json"),
    "a key set that is none": (replaced("jwks.json", "[]"), "jwks.json"),
    "no API keys": (authenticator(type="api_key", file="none.toml"), "cannot read the API keys"),
    "two of one kind": (
        in_turn(authenticator(type="jwt"), authenticator(type="jwt", name="again")),
        "again",
    ),
    "an issuer's key set that is none": (oidc(key_set="ca.pem"), "ca.pem"),
    "no trust bundle": (tls(PARTNER), "partner.pem"),
    "no certificate": (removed("server.pem"), "server.pem"),
    "a list that is none": (tls('crl = "crl.pem"\n', crl_pem=b"nonsense"), "crl.pem"),
    "pages": (
        table('\n[http]\nlisten = "127.0.0.1:0"\n'),
        "secure-server.toml:12: http.listen is not for Guard.from_config: a guard has no pages",
    ),
    "a log": (table('[log]\nlevel = "debug"\n'), "log.level is not for Guard.from_config"),
    "a store": (table("[store]\nmax_feed_staleness = 9\n"), "store.max_feed_staleness is not for"),
    "an address": (table('[server]\nlisten = "127.0.0.1:0"\n'), "server.listen is not for"),
    "a signing key": (tokens('signing_key = "key.pem"\n'), "tokens.signing_key is not for"),
    "an issuer without keys": (
        in_turn(without_tokens, table('[tokens]\nissuer = "https://a.example"\n')),
        "tokens.issuer is not for Guard.from_config: name the file with",
    ),
    "a key that is none": (table("[server]\nthreads = 1\n"), "door_threads"),
}


@pytest.mark.parametrize("row", GOOD)
def test_what_a_guard_can_be_made_of_is_ok(tmp_path: Path, row: str) -> None:
    site = Site(tmp_path, own=True)
    GOOD[row](site)
    assert agree(site) == ("", False)


@pytest.mark.parametrize("row", WARNED)
def test_what_a_guard_only_warns_of_is_a_warning(tmp_path: Path, row: str) -> None:
    site = Site(tmp_path, own=True)
    WARNED[row](site)
    assert agree(site) == ("", True)


@pytest.mark.parametrize("row", BROKEN)
def test_what_no_guard_can_be_made_of_fails_with_the_same_sentence(
    tmp_path: Path, row: str
) -> None:
    prepare, says = BROKEN[row]
    site = Site(tmp_path, own=True)
    prepare(site)
    refusal, _ = agree(site)
    assert says in refusal


def test_a_variable_of_the_environment_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, own=True)
    monkeypatch.setenv("SECURE_SERVER_LOG__LEVEL", "debug")
    refusal, _ = agree(site)
    assert refusal == (
        "environment: SECURE_SERVER_LOG__LEVEL is not for Guard.from_config: the log is your "
        "application's: set structlog and logging up there."
    )


def test_the_same_keys_are_good_for_the_service(tmp_path: Path) -> None:
    """The refusal is about the way of starting, not about the key."""
    file = tmp_path / "secure-server.toml"
    file.write_text('[log]\nlevel = "debug"\n[policy]\nfile = "p.json"\n')
    assert read_config(file).log.level == "debug"
    with pytest.raises(ConfigError, match=r"^.+:2: log\.level is not for Guard\.from_config: "):
        read_guard_config(file)


def test_an_authenticator_whose_check_fails_is_a_warning_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start asks none of them."""

    def fail(_self: object) -> str:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(APIKeyAuthenticator, "check", fail)
    site = Site(tmp_path, own=True)
    GOOD["API keys alone"](site)
    assert agree(site) == ("", True)
    texts = [finding.text for finding in check_guard(read_guard_config(site.config))]
    assert "its check failed: RuntimeError." in texts
    assert "hunter2" not in " ".join(texts)
