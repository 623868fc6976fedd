"""A folder with all that a configuration names, one thing of which a row of a table changes."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from secure_server import Guard
from secure_server.app.check import check_service
from secure_server.app.lifecycle import Server
from secure_server.config import ConfigError, read_config, read_guard_config
from secure_server.guard.check import CheckFinding, CheckState, check_guard
from secure_server.mistakes import mistakes
from secure_server.testing import Issuer
from secure_tls.authority import Authority, Issued

SHIPPED = resources.files("secure_server").joinpath("policy.json").read_text("utf-8")
GREET = '{"name": "greet", "allow_rules": [{"name": "all"}]}'
SERVICE = '[server]\nlisten = "127.0.0.1:0"\n'
GUARD = '[policy]\nfile = "policy.json"\n'
TLS = '[tls]\ncertificate = "server.pem"\nprivate_key = "server.key"\nclient_ca = "ca.pem"\n'
OWN_TOKENS = '[tokens]\nkey_set = "jwks.json"\nissuer = "https://issuer.example"\n'
_STATE = '[tokens]\nsigning_key = "{0}/key.pem"\n{1}[store]\nurl = "sqlite:///{0}/store.db"\n'


@functools.cache
def authority(domain: str = "example.org") -> Authority:
    return Authority.create(domain)


@functools.cache
def server() -> Issued:
    return authority().issue_server("server", ["localhost"], [ip_address("127.0.0.1")])


@functools.cache
def issuer() -> Issuer:
    return Issuer()


class Site:
    """The folder of one row; ``tls``, ``tokens`` and ``more`` are TOML for its configuration."""

    def __init__(self, folder: Path, *, own: bool) -> None:
        self.folder = folder
        self.own = own
        self.tls = self.more = ""
        self.tokens = OWN_TOKENS if own else ""
        self.state = "state"
        self.tables = GUARD if own else SERVICE
        self.write("ca.pem", authority().certificate_pem)
        self.write("server.pem", server().certificate_pem)
        self.write("server.key", server().private_key_pem)
        self.write("jwks.json", issuer().jwks())
        self.write("policy.json", GREET if own else SHIPPED)

    def write(self, name: str, data: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def audited(self, *loggers: dict[str, Any]) -> None:
        """Have the policy name audit loggers."""
        policy = json.loads(GREET if self.own else SHIPPED)
        policy["audit_logging_options"] = {
            "audit_condition": "ON_DENY",
            "audit_loggers": list(loggers),
        }
        self.write("policy.json", json.dumps(policy))
        if not self.own:
            self.more += GUARD

    def authenticator(self, **settings: object) -> None:
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        self.more += "\n".join(["[[authenticators]]", *lines, ""])

    @property
    def config(self) -> Path:
        tokens = self.tokens if self.own else _STATE.format(self.state, self.tokens)
        return self.write("secure-server.toml", self.tables + TLS + self.tls + tokens + self.more)

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/state/store.db"

    def seen(self) -> dict[str, tuple[object, ...]]:
        """Everything in the folder, as it is: names, modes, times of change, contents."""
        return dict(_seen(self.folder))


def _seen(folder: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    for path in (folder, *sorted(folder.rglob("*"))):
        if path.name.endswith("-shm"):
            continue  # SQLite's locks of those who read, and no data
        status = path.lstat()
        is_file = path.is_file() and os.access(path, os.R_OK, effective_ids=True)
        content = path.read_bytes() if is_file else b""
        yield str(path), (status.st_ino, status.st_mode, status.st_mtime_ns, content)


@dataclass(frozen=True)
class Outcome:
    """What a check or a start came to; empty where it is good."""

    refusal: str
    warned: bool = False


def check(config: Path, *, own: bool) -> Outcome:
    """What `secure-server check` says."""
    try:
        findings = list(check_guard(read_guard_config(config))) if own else _service(config)
    except ConfigError as error:
        return Outcome(str(error))
    failed = [each.text for each in findings if each.state is CheckState.FAIL]
    warned = any(each.state is CheckState.WARN for each in findings)
    return Outcome(failed[0] if failed else "", warned)


def _service(config: Path) -> list[CheckFinding]:
    return list(check_service(read_config(config)))


def start(config: Path, *, own: bool) -> Outcome:
    """What a start says, by ``Guard.from_config`` or as ``secure-server serve`` does it."""
    try:
        if own:
            guard = Guard.from_config(config)
            try:
                guard.server_credentials()
            finally:
                guard.close()
        else:
            built = Server(read_config(config))
            try:
                built.start()
            finally:
                built.stop()
    except ConfigError as error:
        return Outcome(str(error))
    except mistakes() as error:
        return Outcome(str(error))
    return Outcome("")


Prepare = Callable[[Site], object]


def aged(days: float, domain: str = "example.org") -> Authority:
    """The authority as it was so many days ago."""
    return dataclasses.replace(authority(domain), clock=lambda: time.time() - days * 86400)


def crl(by: Authority, days: float = 7) -> bytes:
    made = by.crl([], number=1, lifetime=timedelta(days=days))
    return made.public_bytes(Encoding.PEM)


def agree(site: Site) -> tuple[str, bool]:
    """Hold the check to the start, and to changing nothing; return what both say."""
    config = site.config
    before = site.seen()
    found = check(config, own=site.own)
    assert site.seen() == before, "a look has changed something"
    begun = start(config, own=site.own)
    assert found.refusal == begun.refusal
    return found.refusal, found.warned


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[str]:
    """An address that is taken."""
    with socket.socket() as taken:
        taken.bind((host, 0))
        taken.listen()
        yield f"{host}:{taken.getsockname()[1]}"


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run without the superuser's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    # Python imports it at the first name that is looked up, and may be where others cannot read.
    "localhost".encode("idna")
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
