"""A guard of values in memory: what it is made of counts, and it lets go of all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from secure_server.auth import Authenticators
from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.matchers import Prefix
from secure_server.authz import Policy
from secure_server.guard import Guard, TLSSet
from secure_server.limits import Limits
from secure_tls import SpiffeIDError, TLSFileError
from secure_tls.authority import Authority, Issued
from support.door import Changing, wait_until

OPEN = '{"name": "open", "allow_rules": [{"name": "all"}]}'


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("example.org")


@pytest.fixture(scope="module")
def leaf(authority: Authority) -> Issued:
    return authority.issue_server("server", ["localhost"], [ip_address("127.0.0.1")])


def set_of(authority: Authority, leaf: Issued, client_ca: bytes = b"", **more: Any) -> TLSSet:
    return TLSSet.of_pem(
        leaf.certificate_pem,
        leaf.private_key_pem,
        client_ca or authority.certificate_pem,
        **{"trust_domains": ["example.org"], **more},
    )


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        ({"trust_domains": "example.org"}, TypeError),
        ({"trust_domains": ["example.org", "Example Org"]}, SpiffeIDError),
        ({"minimum_version": "1.1"}, ValueError),
    ],
)
def test_a_set_of_what_the_configuration_would_refuse_is_refused(
    authority: Authority, leaf: Issued, mistake: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        set_of(authority, leaf, **mistake)


def test_a_guard_that_cannot_be_made_lets_go_of_its_threads(
    authority: Authority, leaf: Issued
) -> None:
    class Broken(Changing[Policy]):
        def subscribe(self, told: Callable[[Policy], object]) -> Callable[[], None]:
            raise RuntimeError

    before = {*threading.enumerate()}
    with pytest.raises(RuntimeError):
        Guard(
            tls=set_of(authority, leaf),
            policy=Broken(Policy.parse(OPEN)),
            authenticators=Authenticators([]),
        )
    wait_until(lambda: {*threading.enumerate()} <= before)


def test_a_set_of_pem_is_as_strict_as_one_of_files(authority: Authority, leaf: Issued) -> None:
    other = authority.issue_server("other", ["localhost"])
    with pytest.raises(TLSFileError, match="not the key of"):
        TLSSet.of_pem(
            leaf.certificate_pem,
            other.private_key_pem,
            authority.certificate_pem,
            trust_domains=["example.org"],
        )
    client = authority.issue_client("client")
    with pytest.raises(TLSFileError):
        set_of(authority, client)
    with pytest.raises(TLSFileError):
        set_of(authority, leaf, client_ca=leaf.certificate_pem)


def test_a_set_of_pem_trusts_these_domains_over_this_version(
    authority: Authority, leaf: Issued
) -> None:
    assert set_of(authority, leaf).minimum_version == "1.3"
    assert set_of(authority, leaf, minimum_version="1.2").minimum_version == "1.2"
    assert set_of(authority, leaf).trust.trust_domains == {"example.org"}


def test_TLS_is_shown_no_authority_that_has_ended(authority: Authority, leaf: Issued) -> None:
    """It would hide its successor of the same name."""
    ended = Authority.create("example.org", clock=lambda: 1e9)
    both = set_of(authority, leaf, client_ca=ended.certificate_pem + authority.certificate_pem)
    assert len(both.files.authorities) == 2
    assert both.handshake_bundle == set_of(authority, leaf).handshake_bundle


def test_a_new_server_is_needed_for_whatever_TLS_shows(authority: Authority, leaf: Issued) -> None:
    first = set_of(authority, leaf)
    assert set_of(authority, leaf).serving == first.serving
    other = authority.issue_server("server", ["localhost"])
    assert set_of(authority, other).serving != first.serving
    more = authority.certificate_pem + Authority.create("example.org").certificate_pem
    assert set_of(authority, leaf, client_ca=more).serving != first.serving


class Closing:
    """An authenticator that is told when it is closed."""

    name = "closing"
    matchers = (Prefix("opaque-"),)
    is_closed = False

    def authenticate(self, _credentials: object, _peer: object) -> None:
        return None

    def close(self) -> None:
        self.is_closed = True


class Feed:
    """Revocations that know who is told of them."""

    generation = 0
    is_current = True

    def __init__(self) -> None:
        self.told: list[Callable[[], None]] = []

    def is_revoked(self, _principal: object) -> bool:
        return False

    def subscribe(self, told: Callable[[], None]) -> Callable[[], None]:
        self.told.append(told)
        return lambda: self.told.remove(told)


def test_a_guard_that_is_closed_lets_go_of_its_threads_and_of_what_it_was_told_by(
    authority: Authority, leaf: Issued
) -> None:
    before = {*threading.enumerate()}
    tls, policy, feed = Changing(set_of(authority, leaf)), Changing(Policy.parse(OPEN)), Feed()
    closing = Closing()
    guard = Guard(
        tls=tls, policy=policy, authenticators=Authenticators([closing]), revocations=feed
    )
    guard.interceptor()
    asyncio_s = guard.aio_interceptor()
    for stream in (False, True):
        asyncio_s.run(int, stream=stream).result(10)
    asyncio_s._recognising.submit(int).result(10)
    guard.streams.run_later(int)
    guard.watchdog.add_serving_thread()
    guard._callbacks.of_call()
    assert {*threading.enumerate()} - before
    assert (len(tls._told), len(policy._told), len(feed.told)) == (1, 1, 1)
    guard.close()
    assert (tls._told, policy._told, feed.told, closing.is_closed) == ([], [], [], True)
    wait_until(lambda: {*threading.enumerate()} <= before)


def test_each_limit_bounds_what_it_is_about(authority: Authority, leaf: Issued) -> None:
    guard = Guard(
        tls=set_of(authority, leaf),
        policy=Policy.parse(OPEN),
        authenticators=Authenticators([]),
        limits=Limits(door_threads=2, stream_threads=3, message_timeout=5),
    )
    over = threading.Event()
    try:
        with guard.thread_pool() as door:
            assert door._max_workers == 2
        assert [guard.streams.try_run(lambda: over.wait(10)) for _ in range(4)] == [True] * 3 + [
            False
        ]
        asyncio_s = guard.aio_interceptor()
        assert [asyncio_s.try_open_stream() for _ in range(4)] == [True] * 3 + [False]
        assert asyncio_s.message_timeout == 5
    finally:
        over.set()
        guard.close()


LOGGING = """{"name": "open", "allow_rules": [{"name": "all"}], "audit_logging_options": {
  "audit_condition": "ON_ALLOW",
  "audit_loggers": [{"name": "file_logger", "config": {"path": "audit.log"}}]}}"""
CONFIG = """
[server]
door_threads = 2
stream_threads = 1
max_message_bytes = 1234
[tls]
certificate = "server.pem"
private_key = "server.key"
client_ca = "ca.pem"
trust_domains = ["example.org"]
minimum_version = "1.2"
[policy]
file = "policy.json"
[[authenticators]]
type = "certificate"
"""


@pytest.fixture
def config(tmp_path: Path, authority: Authority, leaf: Issued) -> Path:
    for name, content in (
        ("server.pem", leaf.certificate_pem),
        ("server.key", leaf.private_key_pem),
        ("ca.pem", authority.certificate_pem),
        ("policy.json", LOGGING.encode()),
        ("guard.toml", CONFIG.encode()),
    ):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(content)
    return tmp_path / "guard.toml"


def is_open(path: Path) -> bool:
    links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return path in [link.readlink() for link in links]


def test_from_config_takes_what_the_file_says(config: Path) -> None:
    before = {*threading.enumerate()}
    guard = Guard.from_config(config)
    over = threading.Event()
    try:
        with guard.thread_pool() as door:
            assert door._max_workers == 2
        assert [guard.streams.try_run(lambda: over.wait(10)) for _ in range(2)] == [True, False]
        assert ("grpc.max_receive_message_length", 1234) in guard.options()
        assert guard._tls.value.minimum_version == "1.2"
        assert {*guard.reloads.statuses} >= {"policy", "certificate"}
        assert is_open(config.with_name("audit.log"))
    finally:
        over.set()
        guard.close()
    assert not is_open(config.with_name("audit.log"))
    wait_until(lambda: {*threading.enumerate()} <= before)


@pytest.mark.parametrize("missing", ["server.pem", "authenticator"])
def test_from_config_leaves_nothing_open_where_it_fails(
    config: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Authenticators] = []
    close = Authenticators.close

    def note(self: Authenticators) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(Authenticators, "close", note)
    before = {*threading.enumerate()}
    if missing == "authenticator":
        config.write_text(CONFIG.replace('"certificate"', '"jwt"'))
    else:
        config.with_name(missing).unlink()
    with pytest.raises((TLSFileError, AuthenticatorError)):
        Guard.from_config(config)
    assert len(closed) == (missing == "server.pem"), "the authenticators were made"
    assert not is_open(config.with_name("audit.log"))
    wait_until(lambda: {*threading.enumerate()} <= before)
