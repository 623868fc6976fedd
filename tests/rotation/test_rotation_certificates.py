"""The files of ``[tls]`` as they are reloaded: what is warned of, how often, and what stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from secure_server.config import TLSSection
from secure_server.guard.certificates import Certificates
from secure_tls.authority import Authority

DAY = 86400.0
NEAR = "the server certificate is near its end: renew it"


class Files:
    """A server's files, and the clock that it is read by."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.authority = Authority.create("example.org")
        self.partner = Authority.create("partner.example")
        self.now = 0.0
        self._written = 0
        self.write("ca.pem", self.authority.certificate_pem)
        self.write("partner.pem", self.partner.certificate_pem)

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        # Another version for sure, and one that no writer is at any more.
        self._written += 1
        os.utime(path, (1e9 + self._written,) * 2)

    def issue(self, days: float) -> float:
        """Write a leaf that lives so long; return when it ends."""
        leaf = self.authority.issue_server(
            "server", ["localhost"], [ip_address("127.0.0.1")], timedelta(days=days)
        )
        self.write("server.pem", leaf.certificate_pem)
        self.write("server.key", leaf.private_key_pem)
        self.now = leaf.certificate.not_valid_before_utc.timestamp() + 3600
        return leaf.certificate.not_valid_after_utc.timestamp()

    def open(self, **settings: Any) -> Certificates:
        section = TLSSection(
            certificate=self.root / "server.pem",
            private_key=self.root / "server.key",
            client_ca=self.root / "ca.pem",
            **settings,
        )
        return Certificates(section, lambda: self.now)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def near(log: list[dict[str, object]]) -> Callable[[], int]:
    """How often the log was told that the certificate ends soon."""
    return lambda: [line["event"] for line in log].count(NEAR)


def test_an_end_that_is_near_is_warned_of_once_a_week_and_then_once_a_day(
    files: Files, near: Callable[[], int]
) -> None:
    end = files.issue(90)
    certificates = files.open()
    assert (near(), certificates.warnings) == (0, [])
    for left, times in (
        *((30.1, 0), (29.9, 1), (29.8, 1), (23, 1), (22.8, 2), (15.8, 3), (8.8, 4)),
        *((6.9, 4), (1.8, 5), (1.7, 5), (0.8, 6), (-0.1, 6), (-0.3, 7)),
    ):
        files.now = end - left * DAY
        certificates.look()
        assert near() == times, left
        assert len(certificates.warnings) == (left < 30)
    assert certificates.warnings == ["The server certificate ends in 0.0 days."]


def test_the_end_of_a_short_life_is_near_in_its_last_third(
    files: Files, near: Callable[[], int]
) -> None:
    end = files.issue(3)
    certificates = files.open()
    files.now = end - 1.2 * DAY
    certificates.look()
    assert (near(), certificates.warnings) == (0, [])
    files.now = end - 0.9 * DAY
    certificates.look()
    assert (near(), len(certificates.warnings)) == (1, 1)


def test_a_new_certificate_that_ends_soon_too_is_warned_of_by_itself(
    files: Files, near: Callable[[], int]
) -> None:
    end = files.issue(90)
    certificates = files.open()
    files.now = end - 20 * DAY
    certificates.look()
    assert near() == 1
    files.issue(90)
    files.now = end - 20 * DAY
    certificates.look()
    assert near() == 2


def test_a_new_certificate_of_the_server_makes_no_new_trust(files: Files) -> None:
    """Or each client would be judged anew."""
    files.issue(90)
    certificates = files.open(trust_bundles={"partner.example": files.root / "partner.pem"})
    first = certificates.watched.value
    files.issue(90)
    files.write("ca.pem", files.authority.certificate_pem)
    files.write("partner.pem", files.partner.certificate_pem)
    certificates.look()
    assert certificates.watched.value.files != first.files
    assert certificates.watched.value.trust is first.trust


def test_a_set_is_what_the_section_says(files: Files) -> None:
    files.issue(90)
    bundles = {"partner.example": files.root / "partner.pem"}
    found = files.open(trust_bundles=bundles, minimum_version="1.2").watched.value
    assert found.minimum_version == "1.2"
    assert found.trust.trust_domains == {"example.org", "partner.example"}
    assert not found.trust.refuse_stale_lists
    for authority in (files.authority, files.partner):
        assert authority.certificate_pem.strip() in found.handshake_bundle
