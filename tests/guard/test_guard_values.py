"""A guard of values in memory: what it is made of counts, and it lets go of all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from secure_server.auth import Authenticators
from secure_server.auth.matchers import Prefix
from secure_server.authz import Policy
from secure_server.guard import Guard, TLSSet
from secure_server.limits import Limits
from secure_tls import TLSFileError
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


def test_from_config_takes_the_limits_of_the_file(tmp_path: Path, authority: Authority) -> None:
    leaf = authority.issue_server("server", ["localhost"], lifetime=timedelta(days=30))
    for name, content in (
        ("server.pem", leaf.certificate_pem),
        ("ca.pem", authority.certificate_pem),
        ("policy.json", OPEN.encode()),
    ):
        (tmp_path / name).write_bytes(content)
    key = tmp_path / "server.key"
    key.touch(mode=0o600)
    key.write_bytes(leaf.private_key_pem)
    (tmp_path / "guard.toml").write_text(
        "[server]\ndoor_threads = 2\nstream_threads = 1\nmax_message_bytes = 1234\n"
        '[tls]\ncertificate = "server.pem"\nprivate_key = "server.key"\nclient_ca = "ca.pem"\n'
        'trust_domains = ["example.org"]\nminimum_version = "1.2"\n'
        '[policy]\nfile = "policy.json"\n[[authenticators]]\ntype = "certificate"\n'
    )
    before = {*threading.enumerate()}
    guard = Guard.from_config(tmp_path / "guard.toml")
    over = threading.Event()
    try:
        with guard.thread_pool() as door:
            assert door._max_workers == 2
        assert [guard.streams.try_run(lambda: over.wait(10)) for _ in range(2)] == [True, False]
        assert ("grpc.max_receive_message_length", 1234) in guard.options()
        assert guard._tls.value.minimum_version == "1.2"
        assert set(guard.reloads.statuses) >= {"policy", "certificate"}
    finally:
        over.set()
        guard.close()
    wait_until(lambda: {*threading.enumerate()} <= before)
