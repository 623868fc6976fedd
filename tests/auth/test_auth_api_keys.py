"""API keys: shown once, kept as digests, added and removed while the server runs."""

from __future__ import annotations

import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from auth_door import STACKS, guarded

from secure_server import AuthenticatorError
from secure_server.auth.api_keys import make_api_key, read_api_keys
from secure_server.testing import Issuer
from support.door import wait_until

BIN = Path(sys.executable).parent


def add(file: Path, owner: str = "ci", **grant: Any) -> str:
    settings = {
        "scopes": ["read"],
        "roles": ["robot"],
        "expires": datetime.now(UTC) + timedelta(days=1),
    } | grant
    key, entry = make_api_key(owner, **settings)
    file.write_text((file.read_text() if file.exists() else "") + entry)
    return key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "api-keys.toml"


@pytest.mark.parametrize("stack", STACKS)
def test_a_key_is_recognised_and_any_other_is_not(file: Path, stack: str) -> None:
    key = add(file)
    with guarded(stack, {"type": "api_key", "file": file}) as door:
        for _ in range(3):
            assert door.ask(f"Bearer {key}") == ("OK", "api_key ci [robot] [read]")
        twisted = key[:-1] + ("A" if key[-1] != "A" else "B")
        for bad, code in (
            (twisted, "api_key"),
            (make_api_key("x", scopes=(), roles=(), expires=datetime.now(UTC))[0], "api_key"),
            (key + "A", "malformed"),
            (key.upper(), "unclaimed"),
            ("sgk_", "malformed"),
            ("sgk_" + "x" * 9000, "malformed"),
        ):
            assert door.code(f"Bearer {bad}") == code, bad[:40]
            assert door.ask(f"Bearer {bad}")[0] == "UNAUTHENTICATED"
            assert bad[24:] not in f"{door.audit}" or len(bad) < 25
        assert door.code(f"Basic {key}") == "unclaimed"


@pytest.mark.parametrize("stack", STACKS)
def test_a_key_ends_when_it_says_and_not_before(file: Path, stack: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    moment = [now.timestamp()]
    key = add(file, expires=now + timedelta(seconds=60))
    issuer = Issuer(clock=lambda: moment[0])
    with guarded(stack, {"type": "api_key", "file": file}, issuer=issuer) as door:
        assert door.ask(f"Bearer {key}")[0] == "OK"
        moment[0] += 59.9
        assert door.ask(f"Bearer {key}")[0] == "OK"
        moment[0] += 0.2
        assert door.code(f"Bearer {key}") == "expired"


@pytest.mark.parametrize("stack", STACKS)
def test_a_changed_file_is_reloaded_and_a_broken_one_changes_nothing(
    file: Path, stack: str
) -> None:
    first = add(file)
    with guarded(stack, {"type": "api_key", "file": file}) as door:
        assert door.ask(f"Bearer {first}")[0] == "OK"
        second = add(file, "other")
        assert door.ask(f"Bearer {second}") == ("OK", "api_key other [robot] [read]")
        whole = file.read_text()
        file.write_text("[[keys]\n")
        wait_until(lambda: "not TOML" in door.member("api_key")._keys._keys.status.reason)
        assert door.ask(f"Bearer {first}")[0] == "OK"
        file.write_text(whole[whole.index("[[keys]]", 1) :])
        wait_until(lambda: door.code(f"Bearer {first}") == "api_key")
        assert door.ask(f"Bearer {second}")[0] == "OK"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[keys]", "not TOML"),
        ("key = 1\n", "'key' is not known"),
        ("[[keys]]\nid = 'x'\n", r"keys\[0\]\.id is wrong"),
        ("keys = 3\n", r"keys\[0\] is wrong"),
    ],
)
def test_a_wrong_file_prevents_the_start_and_the_error_says_where(
    file: Path, text: str, reason: str
) -> None:
    file.write_text(text)
    with pytest.raises(AuthenticatorError, match=rf"api-keys\.toml: {reason}"):
        read_api_keys(file)


def test_a_repeated_id_or_a_missing_file_prevents_the_start(file: Path) -> None:
    with pytest.raises(AuthenticatorError, match="cannot read the API keys"):
        read_api_keys(file)
    add(file)
    file.write_text(file.read_text() * 2)
    with pytest.raises(AuthenticatorError, match="the same `id`"):
        read_api_keys(file)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "secure-server"), "api-keys", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_shows_a_key_once_and_keeps_its_digest(file: Path) -> None:
    first = command(file.parent, "create", "--owner", "ci", "--scope", "read", "--role", "robot")
    second = command(file.parent, "create", "--owner", "größe:1", "--days", "5")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    one, two = first.stdout.strip(), second.stdout.strip()
    assert one not in file.read_text()
    assert one[21:] not in file.read_text()
    keys = {key.owner: key for key in read_api_keys(file).values()}
    assert set(keys) == {"ci", "größe:1"}
    assert (keys["ci"].scopes, keys["ci"].roles) == ({"read"}, {"robot"})
    with guarded("threads", {"type": "api_key", "file": file}) as door:
        assert door.ask(f"Bearer {one}") == ("OK", "api_key ci [robot] [read]")
        assert door.ask(f"Bearer {two}")[0] == "OK"
    listed = command(file.parent, "list")
    assert "größe:1" in listed.stdout
    assert one not in listed.stdout


def test_a_mistake_adds_nothing(file: Path) -> None:
    done = command(file.parent, "create", "--owner", "a b")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith("secure-server: --owner is not 1 to 128 letters")
    assert not file.exists()
    file.write_text("[[keys]\n")
    assert command(file.parent, "create", "--owner", "ci").returncode == 1
    assert file.read_text() == "[[keys]\n"
