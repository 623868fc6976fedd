"""The same, by the real command: `secure-server check`, and `secure-server serve` beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from check_rows import PARTNER, authenticator, nothing, replaced, table, tls
from check_site import Prepare, Site, aged, crl

DEADLINE = 60.0


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("secure-server"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


BROKEN: dict[str, Prepare] = {
    "a trust bundle": tls(PARTNER),
    "a store": replaced("state/store.db", "nonsense " * 1000),
    "an address": table('[http]\nlisten = "192.0.2.1:5000"\n'),
    "a key": table("[log]\nlevels = 1\n"),
}


@pytest.mark.parametrize("row", BROKEN)
def test_a_start_ends_with_the_first_failure_of_the_check(tmp_path: Path, row: str) -> None:
    site = Site(tmp_path, own=False)
    BROKEN[row](site)
    assert site.config.name == "secure-server.toml"
    found, begun = run(tmp_path, "check"), run(tmp_path, "serve")
    assert (found.returncode, begun.returncode) == (1, 1)
    said = [line for line in begun.stderr.splitlines() if line.startswith("secure-server: ")]
    failed = [line for line in found.stdout.splitlines() if line.startswith("FAIL  ")]
    failed = [line.partition(": ")[2] for line in failed] or [found.stderr.partition(": ")[2][:-1]]
    assert [line.partition(": ")[2] for line in said] == failed[:1]


def test_a_guard_is_checked_by_the_same_command(tmp_path: Path) -> None:
    site = Site(tmp_path, own=True)
    tls('crl = "crl.pem"\n', crl_pem=crl(aged(40)))(site)
    authenticator(type="certificate")(site)
    assert site.config
    done = run(tmp_path, "check", "--own-servicer", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    findings = json.loads(done.stdout)
    assert [(each["about"], each["state"]) for each in findings] == [
        ("policy", "ok"),
        ("authenticator certificate", "ok"),
        ("certificate", "ok"),
        ("revocation list", "warn"),
    ]

    mistaken = run(tmp_path, "check")
    assert mistaken.returncode == 1
    assert "`secure-server check --own-servicer`" in mistaken.stderr


def test_a_guard_without_a_file_has_nothing_to_check(tmp_path: Path) -> None:
    done = run(tmp_path, "check", "--own-servicer")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("secure-server: ")


def test_what_is_good_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path, own=False)
    nothing(site)
    before = site.config.stat().st_mtime_ns, site.seen()
    done = run(tmp_path, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        f"ok    {about}"
        for about in (
            *("addresses", "signing key", "policy", "authenticator jwt", "certificate", "store"),
        )
    ]
    assert (site.folder / "secure-server.toml").stat().st_mtime_ns == before[0]
    assert site.seen() == before[1]
