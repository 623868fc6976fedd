"""``secure-server keys``: what it prints, changes and refuses."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from secure_server import cli
from secure_server.tokens.key_file import KeyFile

PASSPHRASE = "correct-horse-battery-staple-by-chance"


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the real command line in a folder of its own, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["secure-server", "keys", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


def listed(command: Command) -> list[dict[str, Any]]:
    done = command("list", "--json")
    assert (done.status, done.err) == (0, "")
    keys: list[dict[str, Any]] = json.loads(done.out)
    return keys


def states(command: Command) -> list[str]:
    return [key["state"] for key in listed(command)]


def seconds_between(one: str, other: str) -> float:
    return (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds()


def test_before_the_first_start_there_is_no_key_and_looking_makes_none(
    command: Command, tmp_path: Path
) -> None:
    assert listed(command) == []
    assert "no key yet" in command("list").out
    assert not list(tmp_path.iterdir())


def test_the_first_rotation_makes_the_first_key(command: Command) -> None:
    assert "is the first, and signs now" in command("rotate").out
    assert states(command) == ["signing"]


def test_a_rotation_publishes_a_key_and_a_second_one_makes_no_other(command: Command) -> None:
    command("rotate")
    ((signing,),) = [listed(command)]
    first, second = command("rotate"), command("rotate")
    following, still = listed(command)
    assert still["kid"] == signing["kid"]
    assert (following["state"], still["state"]) == ("next", "signing")
    assert seconds_between(following["since"], following["until"]) == 600
    assert still["until"] == following["until"]
    assert f"{following['kid']} is published now and signs from" in first.out
    assert f"{following['kid']} is published already and signs from" in second.out
    assert (first.status, second.status, first.err, second.err) == (0, 0, "", "")


def test_now_signs_at_once_and_says_who_refuses_its_tokens_for_how_long(command: Command) -> None:
    command("rotate")
    command("rotate")
    waiting, signing = listed(command)
    done = command("rotate", "--now")
    assert done.status == 0
    assert "refuse its tokens until they do" in done.err
    assert "up to 10 seconds" in done.err
    new, old = listed(command)
    assert (new["state"], old["state"]) == ("signing", "verifying")
    assert old["kid"] == signing["kid"]
    assert new["kid"] != waiting["kid"]
    assert new["until"] is None
    assert seconds_between(old["since"], old["until"]) == 3610
    assert f"The key {new['kid']} signs now" in done.out
    assert f"Tokens of {old['kid']} are good until they end" in done.out


def test_the_time_of_publishing_is_a_setting(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("rotate")
    monkeypatch.setenv("SECURE_SERVER_TOKENS__SIGNING_KEY_PUBLISHING", "86400")
    command("rotate")
    following, _ = listed(command)
    assert seconds_between(following["since"], following["until"]) == 86400


def test_the_table_has_a_line_for_each_key(command: Command) -> None:
    command("rotate")
    command("rotate")
    heads, *rows = command("list").out.splitlines()
    assert heads.split() == ["KID", "STATE", "SINCE", "UNTIL"]
    assert [row.split()[:2] for row in rows] == [[k["kid"], k["state"]] for k in listed(command)]


def test_turning_encryption_on_takes_one_rotation_even_while_a_key_waits(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("rotate")
    command("rotate")
    before = listed(command)
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(PASSPHRASE)
    monkeypatch.setenv("SECURE_SERVER_TOKENS__SIGNING_KEY_PASSPHRASE_FILE", str(secret))
    assert command("rotate").status == 0
    assert listed(command) == before
    assert "BEGIN PRIVATE KEY" not in (tmp_path / "state/signing-key.pem").read_text()
    monkeypatch.delenv("SECURE_SERVER_TOKENS__SIGNING_KEY_PASSPHRASE_FILE")
    for arguments in (["list"], ["rotate"], ["rotate", "--now"]):
        done = command(*arguments)
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith("secure-server: state/signing-key.pem: the signing key is enc")
        assert len(done.err.splitlines()) == 1


def test_U29_no_secret_is_printed_whatever_goes_wrong(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(PASSPHRASE)
    path = tmp_path / "state/signing-key.pem"
    printed = [command("rotate"), command("rotate"), command("list")]
    secrets = [PASSPHRASE, "another" * 6]

    def remember_secrets() -> None:
        for entry in KeyFile(path, secret).read(0).entries:
            scalar = entry.key.private_key.private_numbers().private_value
            secrets.extend([str(scalar), f"{scalar:x}"])
            secrets.append(base64.b64encode(scalar.to_bytes(32)).decode()[:40])
        lines = path.read_text().splitlines()
        secrets.extend(line for line in lines if len(line) == 64 and ":" not in line)

    remember_secrets()
    monkeypatch.setenv("SECURE_SERVER_TOKENS__SIGNING_KEY_PASSPHRASE_FILE", str(secret))
    printed += [command("rotate", "--now"), command("list", "--json")]
    remember_secrets()
    secret.write_text("another" * 6)
    printed += [command("rotate"), command("list")]
    path.chmod(0o640)
    printed += [command("rotate")]
    path.chmod(0o600)
    path.write_text(path.read_text()[:-80])
    printed += [command("rotate"), command("list")]
    assert [done.status for done in printed] == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert len(secrets) > 10
    assert not [d for d in printed for text in secrets if text in d.out + d.err]
    assert not [d for d in printed if "Traceback" in d.err or len(d.err.splitlines()) > 1]


@pytest.mark.parametrize("seconds", ["1", "3599", "-1"])
def test_a_lifetime_that_would_fill_the_key_set_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    monkeypatch.setenv("SECURE_SERVER_TOKENS__SIGNING_KEY_LIFETIME", seconds)
    done = command("list")
    assert done.status == 1
    assert "SECURE_SERVER_TOKENS__SIGNING_KEY_LIFETIME is " in done.err


def test_two_real_commands_at_once_make_one_key(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("secure-server")
    KeyFile(tmp_path / "state/signing-key.pem").open(1_790_000_000)
    both = [
        subprocess.Popen(
            [script, "keys", "rotate"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = sorted(one.communicate(timeout=60)[0].split()[5] for one in both)
    assert [one.returncode for one in both] == [0, 0]
    assert said == ["already", "now"]
    ring = KeyFile(tmp_path / "state/signing-key.pem").read(1_790_000_000)
    assert len(ring.entries) == 2
