"""Every command and snippet that the documents show works as they show it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from secure_server.authz import Policy
from secure_server.config import Config, read_config
from secure_server.config_uses import SERVICE

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SECONDS = 60

_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[a-z]+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    mark: str
    kind: str
    text: str


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [Block(m["mark"] or "", m["kind"], m["text"]) for m in _BLOCK.finditer(text)]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what is committed, with the environment where the README expects it."""
    copy = tmp_path / "clone"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    if not names:
        pytest.skip("this is no git checkout: what a clone holds is not known")
    for name in names:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    return copy


def environment(clone: Path, **more: str) -> dict[str, str]:
    return (
        {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        | {"PATH": f"{BIN}:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(clone / "config")}
        | more
    )


def run(clone: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=clone,
        env=environment(clone),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    "document",
    ["docs/certificates.md", "docs/keys.md", "docs/operations.md", "docs/rotation.md"],
)
def test_the_commands_of_a_document_work_in_their_order(clone: Path, document: str) -> None:
    for block in blocks(document):
        if block.kind == "sh":
            done = run(clone, block.text)
            assert done.returncode == 0, (block.text, done.stdout, done.stderr)


def test_a_mistake_in_the_configuration_looks_as_shown(clone: Path) -> None:
    command, shown = [block for block in blocks("docs/configuration.md") if block.kind != "toml"]
    done = run(clone, command.text)
    assert (done.returncode, done.stderr) == (1, shown.text)


def test_every_key_is_documented_with_its_default() -> None:
    document = (ROOT / "docs/configuration.md").read_text()
    example = (ROOT / "secure-server.toml").read_text()
    for section, field in Config.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {"spiffe_id": None, "roles": None})
        for key, setting in keys.items():
            assert re.search(rf"`{key}`", document), f"{section}.{key} is not documented"
            refused = f"{section}.{key}" in SERVICE.refused
            if section not in {"workloads", "authenticators"} and not refused:
                assert re.search(rf"^(# )?{key} = ", example, re.MULTILINE), f"{section}.{key}"
            default = getattr(setting, "default", None)
            if isinstance(default, int | float) and not isinstance(default, bool):
                assert f"| `{default}` |" in document, f"{section}.{key} has default {default}"


def test_the_example_configuration_is_valid_with_every_comment_taken_away(tmp_path: Path) -> None:
    text = (ROOT / "secure-server.toml").read_text()
    whole = tmp_path / "whole.toml"
    whole.write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    read_config(whole)
    read_config(ROOT / "secure-server.toml")


def test_the_policy_that_is_shown_parses() -> None:
    (block,) = [block for block in blocks("docs/policy.md") if block.kind == "json"]
    json.loads(block.text)
    assert Policy.parse(block.text).names("/secure_api.users.v1.UserService/GetUser")


def test_the_two_commands_of_the_readme_are_targets(clone: Path) -> None:
    first = blocks("README.md")[0]
    for command in re.findall(r"make (\w+)", first.text):
        done = run(clone, f"make -n {command}")
        assert done.returncode == 0, done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def make_run(clone: Path, port: int) -> Iterator[None]:
    """What ``make run`` does once everything is installed, on another port."""
    server = pexpect.spawn(
        str(BIN / "python"),
        ["tools/run.py"],
        cwd=str(clone),
        env=environment(
            clone,
            SECURE_SERVER_SERVER__LISTEN=f"127.0.0.1:{port}",
            SECURE_SERVER_HTTP__LISTEN="127.0.0.1:0",
        ),  # type: ignore[arg-type] # a mapping of text is what it takes
        encoding="utf-8",
        timeout=SECONDS,
    )
    try:
        server.expect("secure-client login admin")
        server.expect("serving")
        yield
        server.sendintr()
        server.expect(pexpect.EOF)
    finally:
        server.close(force=True)
    assert server.exitstatus == 0, server.before


def test_the_tour_of_the_readme_from_the_first_line_to_the_last(clone: Path) -> None:
    tour = {block.mark: block.text for block in blocks("README.md") if block.mark}
    port = free_port()
    with make_run(clone, port):
        shell = pexpect.spawn(
            "bash",
            ["--norc", "--noediting"],
            cwd=str(clone),
            env=environment(clone, PS1="@@$?@@ ", SECURE_CLIENT_TARGET=f"localhost:{port}"),  # type: ignore[arg-type]
            encoding="utf-8",
            timeout=SECONDS,
            dimensions=(50, 200),
        )
        try:
            shell.expect("@@0@@")
            for line in tour["tour"].splitlines():
                command = line.partition("   #")[0].strip()
                shell.sendline(command)
                if command == "secure-client login admin":
                    secret = (clone / "state/bootstrap-secret").read_text().strip()
                    answer(shell, [secret, "a password of my own", "a password of my own"])
                shell.expect(r"@@(\d+)@@")
                assert shell.match.group(1) == "0", (command, shell.before)
            snippet = tour["python"].replace("localhost:50051", f"localhost:{port}")
            (clone / "snippet.py").write_text(snippet)
            shell.sendline("python snippet.py")
            shell.expect(r"users/alice \[\]")
            shell.expect("@@0@@")
            if shutil.which("grpcurl") is None:
                pytest.skip("grpcurl is not installed: all but the last command was run")
            shell.sendline(tour["grpcurl"].replace("localhost:50051", f"localhost:{port}").strip())
            shell.expect("secure_api.users.v1.UserService")
            shell.expect(r"@@(\d+)@@")
            assert shell.match.group(1) == "0"
        finally:
            shell.close(force=True)


def answer(shell: pexpect.spawn[str], answers: list[str]) -> None:
    for each in answers:
        shell.expect(r"(?i)password[^\r\n]*: ")
        shell.sendline(each)


def test_the_tests_that_are_shown_pass(tmp_path: Path) -> None:
    for number, block in enumerate(blocks("docs/testing.md")):
        assert block.mark == "python"
        (tmp_path / f"test_shown_{number}.py").write_text(block.text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
