"""The configuration: defaults that run, paths that count from the file, the environment on top."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secure_server.config import Config, ConfigError, read_config


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("SECURE_SERVER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "server.toml"


def read(file: Path, text: str) -> Config:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return read_config(file)


def test_the_defaults_are_strict() -> None:
    config = read_config(None)
    assert config.server.listen == "127.0.0.1:50051"  # not reachable from elsewhere
    assert config.tls.minimum_version == "1.3"
    assert config.tls.allow_readable_private_key is False
    assert config.tls.trust_domains == ["example.org"]
    assert config.http.listen is None
    assert config.workloads == []
    assert config.tokens.access_token_lifetime == 600


def test_relative_paths_count_from_the_folder_of_the_file(file: Path) -> None:
    config = read(
        file,
        '[tls]\ncertificate = "a/b.pem"\nprivate_key = "/c.key"\nclient_ca = "../ca.pem"\n'
        '[policy]\nfile = "p.json"\n[store]\nurl = "sqlite:///s.db"\n',
    )
    assert config.tls.certificate == file.parent / "a" / "b.pem"
    assert config.tls.private_key == Path("/c.key")
    assert config.tls.client_ca == file.parent / ".." / "ca.pem"
    assert config.tokens.signing_key == file.parent / "state" / "signing-key.pem"
    assert config.policy.file == file.parent / "p.json"
    assert config.store.url == f"sqlite:///{file.parent / 's.db'}"


def test_an_absolute_store_stays_where_it_is(file: Path) -> None:
    assert read(file, '[store]\nurl = "sqlite:////var/s.db"\n').store.url == "sqlite:////var/s.db"


def test_the_environment_lies_over_the_file_key_by_key(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECURE_SERVER_TLS__MINIMUM_VERSION", "1.2")
    monkeypatch.setenv("SECURE_SERVER_TLS__TRUST_DOMAINS", '["b.org", "c.org"]')
    monkeypatch.setenv("SECURE_SERVER_SERVER__GRACE", "2.5")
    monkeypatch.setenv("SECURE_SERVER_TLS__ALLOW_READABLE_PRIVATE_KEY", "true")
    config = read(
        file,
        '[tls]\ntrust_domains = ["a.org"]\ncertificate = "kept.pem"\n'
        "[server]\ngrace = 1\nstream_threads = 7\n",
    )
    assert config.tls.minimum_version == "1.2"
    assert config.tls.trust_domains == ["b.org", "c.org"]
    assert config.tls.certificate == file.parent / "kept.pem"
    assert config.tls.allow_readable_private_key is True
    assert (config.server.grace, config.server.stream_threads) == (2.5, 7)


def test_a_whole_section_of_the_environment_leaves_its_other_keys_to_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECURE_SERVER_SERVER", '{"grace": 2, "retire": 9}')
    monkeypatch.setenv("SECURE_SERVER_SERVER__RETIRE", "8")
    monkeypatch.setenv("SECURE_SERVER_WORKLOADS", '[{"spiffe_id": "spiffe://a/b"}]')
    config = read(
        file,
        '[server]\ngrace = 1\nstream_threads = 7\n[[workloads]]\nspiffe_id = "spiffe://c/d"\n',
    )
    server = config.server
    assert (server.grace, server.retire, server.stream_threads) == (2, 8, 7)
    assert [workload.spiffe_id for workload in config.workloads] == ["spiffe://a/b"]


def test_a_configuration_cannot_be_changed_afterwards() -> None:
    config = read_config(None)
    with pytest.raises(ValueError, match="frozen"):
        config.tls.allow_readable_private_key = True  # type: ignore[misc]


@pytest.mark.parametrize("address", ["[::]:0", "0.0.0.0:65535", "localhost:1", "[fe80::1%eth0]:5"])
def test_addresses_in_every_form_are_accepted(file: Path, address: str) -> None:
    assert read(file, f'[server]\nlisten = "{address}"\n').server.listen == address


@pytest.mark.parametrize("address", ["::1", "1", ":5", "a b:1", "[x]:1", "h:-1", "h:1 ", "h:99999"])
def test_an_invalid_address_is_refused(file: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r":2: server\.listen is not HOST:PORT"):
        read(file, f'[server]\nlisten = "{address}"\n')


def test_a_secret_in_a_refused_value_is_not_repeated(file: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(file, '[store]\nurl = "postgresql://u:hunter2@h/d"\n[tokens]\nissuer = ["hunter2"]\n')
    assert "hunter2" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 2
