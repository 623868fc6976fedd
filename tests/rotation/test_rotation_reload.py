"""One reload: whatever changes while a server runs, broken and mended once.

The last good one stays; health, metrics and log say which source is broken; and all of them say
that it has come back.
"""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import secure_server
from secure_base.reloading import RefreshSchedule
from secure_server.auth.api_keys import make_api_key
from secure_server.guard import Guard
from secure_server.testing import Issuer, Provider, running_provider
from secure_tls.authority import Authority
from support.door import wait_until
from support.house import House, bearer, call, running_house

REFUSED = "cannot be reloaded; the last good one stays"
SOON = RefreshSchedule(refresh=0.2, cooldown=0.2, max_stale=3600, patience=5)
POLICY = Path(secure_server.__file__).with_name("policy.json").read_text()
TOMORROW = datetime.now(UTC) + timedelta(days=1)
KEY, ENTRY = make_api_key("ci", scopes=(), roles=("admin",), expires=TOMORROW)


class Page:
    """What an operator sees of one source."""

    def __init__(self, house: House, source: str) -> None:
        self._http = house.server.http_address
        self._source = source

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self._http}{path}", timeout=10) as page:
            return str(page.read().decode())

    def warnings(self, path: str) -> list[str]:
        page = json.loads(self.get(path))
        assert page["status"] == {"/healthz": "SERVING", "/readyz": "READY"}[path]
        return [text for text in page["warnings"] if text.startswith(f"{self._source} ")]

    def metric(self, name: str) -> float:
        line = rf'^{name}{{source="{re.escape(self._source)}"}} (\S+)$'
        found = re.search(line, self.get("/metrics"), re.MULTILINE)
        assert found is not None, (name, self._source)
        return float(found[1])

    @property
    def failures(self) -> float:
        return self.metric("secure_grpc_reload_failures_total")

    @property
    def succeeded_at(self) -> float:
        return self.metric("secure_grpc_reload_success_time_seconds")


@contextmanager
def everything(root: Path, provider: Provider) -> Iterator[House]:
    """A house with every kind of source that is reloaded."""
    partner = Authority.create("partner.example")
    (root / "partner.pem").write_bytes(partner.certificate_pem)
    (root / "policy.json").write_text(POLICY)
    (root / "api-keys.toml").write_text(ENTRY)
    (root / "keys.json").write_text(Issuer().jwks())
    (root / "provider-ca.pem").write_bytes(provider.ca_file.read_bytes())
    (root / "secret").touch(mode=0o600)
    (root / "secret").write_text(provider.client_secret)
    authority = Authority.create("example.org")
    (root / "crl.pem").write_bytes(authority.crl([], number=1).public_bytes(Encoding.PEM))
    settings = f"""
[policy]
file = "policy.json"
[http]
listen = "127.0.0.1:0"
[[authenticators]]
type = "jwt"
[[authenticators]]
type = "api_key"
name = "robots"
file = "api-keys.toml"
[[authenticators]]
type = "oidc"
name = "file"
profile = "rfc9068"
issuer = "https://idp.example"
audience = "users"
key_set = "keys.json"
[[authenticators]]
type = "oidc"
name = "sso"
profile = "rfc9068"
issuer = "{provider.issuer.name}"
audience = "users"
ca = "provider-ca.pem"
allow_private_addresses = true
[[authenticators]]
type = "introspection"
name = "opaque"
endpoint = "{provider.introspection_endpoint}"
issuer = "{provider.issuer.name}"
audience = "users"
client_id = "{provider.client_id}"
client_secret_file = "secret"
ca = "provider-ca.pem"
allow_private_addresses = true
"""
    tls = 'crl = "crl.pem"\n[tls.trust_bundles]\n"partner.example" = "partner.pem"\n'
    with running_house(root, settings, authority=authority, tls=tls) as house:
        yield house


def file(name: str, content: bytes) -> Callable[[House, Provider], Callable[[], None]]:
    def breaks(house: House, _provider: Provider) -> Callable[[], None]:
        good = (house.root / name).read_bytes()
        house.write(name, content)
        return lambda: house.write(name, good)

    return breaks


def away(name: str) -> Callable[[House, Provider], Callable[[], None]]:
    def breaks(house: House, _provider: Provider) -> Callable[[], None]:
        good = (house.root / name).read_bytes()
        (house.root / name).unlink()
        return lambda: house.write(name, good)

    return breaks


def down(_house: House, provider: Provider) -> Callable[[], None]:
    provider.fail()
    return provider.recover


BREAKS = {
    "certificate": ("certificate", file("server.pem", b"nonsense")),
    "bundle": ("certificate", file("partner.pem", b"nonsense")),
    "list": ("certificate", file("crl.pem", b"nonsense")),
    "policy": ("policy", file("policy.json", b"{")),
    "policy gone": ("policy", away("policy.json")),
    "API keys": ("api-keys robots", file("api-keys.toml", b"[[keys]\n")),
    "key set": ("keys https://idp.example", file("keys.json", b"{}")),
    "signing key": ("signing-key", file("signing-key.pem", b"nonsense")),
    "secret": ("introspection-secret opaque", file("secret", b"\n")),
    "CA": ("ca sso", file("provider-ca.pem", b"nonsense")),
    "discovery": ("keys {issuer}", down),
}


@pytest.mark.parametrize(("source", "breaks"), BREAKS.values(), ids=BREAKS.keys())
def test_a_broken_source_and_its_recovery_show_in_health_metrics_and_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: list[dict[str, Any]],
    source: str,
    breaks: Callable[[House, Provider], Callable[[], None]],
) -> None:
    monkeypatch.setattr("secure_server.auth.oidc.FETCHED", SOON)

    def lines() -> list[str]:
        return [line["event"] for line in log if line.get("source") == source]

    with running_provider() as provider, everything(tmp_path, provider) as house:
        source = source.format(issuer=provider.issuer.name)
        seen = Page(house, source)
        wait_until(lambda: seen.succeeded_at > 0)
        assert (seen.warnings("/healthz"), seen.failures) == ([], 0)
        before, told = seen.succeeded_at, len(lines())

        mend = breaks(house, provider)
        wait_until(lambda: seen.warnings("/healthz"))
        assert seen.warnings("/readyz") == seen.warnings("/healthz")
        assert seen.failures == 1
        (warning,) = seen.warnings("/healthz")
        assert warning.startswith(f"{source} {REFUSED}: ")
        assert lines()[told:] == [REFUSED]
        admin = house.channel(house.admin)
        assert call(admin, metadata=bearer(KEY)).served, "the last good keys were dropped"

        mend()
        wait_until(lambda: not seen.warnings("/healthz"))
        assert seen.warnings("/readyz") == []
        assert seen.succeeded_at > before
        assert seen.failures == 1
        assert lines()[told:] == [REFUSED, "reloaded"]
        assert call(admin, metadata=bearer(KEY)).served


def test_a_broken_file_of_API_keys_is_seen_within_two_seconds(tmp_path: Path) -> None:
    """With it unseen, a key that was withdrawn would live for ever."""
    with running_provider() as provider, everything(tmp_path, provider) as house:
        seen = Page(house, "api-keys robots")
        begun = time.monotonic()
        house.write("api-keys.toml", b"[[keys]\n")
        wait_until(lambda: seen.warnings("/readyz"))
        assert time.monotonic() - begun < 2.0
        admin = house.channel(house.admin)
        assert call(admin, metadata=bearer(KEY)).served
        house.write("api-keys.toml", b"")
        wait_until(lambda: not call(admin, metadata=bearer(KEY)).served)
        assert seen.warnings("/readyz") == []


def test_sources_have_short_names_of_their_own(tmp_path: Path) -> None:
    with running_provider() as provider, everything(tmp_path, provider) as house:
        assert set(house.server._guard.reloads.statuses) == {
            "certificate",
            "policy",
            "signing-key",
            "api-keys robots",
            "keys https://idp.example",
            f"keys {provider.issuer.name}",
            "ca sso",
            "ca opaque",
            "introspection-secret opaque",
        }
        page = Page(house, "policy").get("/metrics")
        assert KEY not in page


def test_rounds_of_guards_leave_no_thread(tmp_path: Path) -> None:
    with running_provider() as provider, everything(tmp_path, provider) as house:
        lines = house.config_file.read_text().splitlines(keepends=True)
        # A guard has no use for the addresses, the grace, the signing key and the store.
        kept = [
            one for one in lines if not one.startswith(("listen", "grace", "signing_key", "url"))
        ]
        text = "".join(kept).replace("[tokens]", '[tokens]\nkey_set = "keys.json"')
        house.config_file.write_text(text)
        before = set(threading.enumerate())

        def left() -> list[str]:
            names = [one.name for one in set(threading.enumerate()) - before]
            # Those are the provider's and the running server's.
            return [name for name in names if "process_request" not in name]

        for _ in range(20):
            Guard.from_config(house.config_file).close()
        wait_until(lambda: not left())
