"""``secure-server``: what it prints, writes and refuses, by the real command."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from secure_api.tokens.v1 import token_service_pb2
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from support.running import DEADLINE, Installation

HOSTILE = 'eve\n{"event": "forged"}\r\x1b[31mred\x00\x85\x9b31m\u2028\u202e'


def run(
    installation: Installation, *arguments: str, module: bool = False
) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("secure-server")
    command = [sys.executable, "-m", "secure_server"] if module else [str(script)]
    first, *rest = arguments
    config = [] if module else ["--config", str(installation.config)]
    return subprocess.run(
        [*command, first, *config, *rest],
        cwd=installation.root,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def log_in(installation: Installation, address: str, secret: str) -> grpc.StatusCode:
    with installation.client().channel(address) as channel:
        request = token_service_pb2.LoginRequest(
            user_name="admin", password=secret, new_password="correct horse battery staple"
        )
        try:
            TokenServiceStub(channel).Login(request, timeout=DEADLINE)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def test_bootstrap_prints_a_secret_a_second_one_replaces_it_and_after_use_there_is_no_third(
    installation: Installation,
) -> None:
    first, second = (run(installation, "bootstrap") for _ in range(2))
    for done in (first, second):
        assert done.returncode == 0
        assert re.fullmatch(r"[A-Za-z0-9_-]{24}\n", done.stdout)
        assert done.stderr.startswith("The administrator admin was made. The secret above works ")
    assert first.stdout != second.stdout

    server = installation.start()
    try:
        assert log_in(installation, server.address, first.stdout.strip()) is (
            grpc.StatusCode.UNAUTHENTICATED
        )
        assert log_in(installation, server.address, second.stdout.strip()) is grpc.StatusCode.OK
        assert log_in(installation, server.address, second.stdout.strip()) is (
            grpc.StatusCode.UNAUTHENTICATED
        )
    finally:
        server.stop()
    assert second.stdout.strip() not in server.log

    third = run(installation, "bootstrap")
    assert third.returncode == 1
    assert third.stdout == ""
    assert third.stderr == (
        "secure-server: There is an administrator already. Ask the administrator for an account.\n"
    )


def test_bootstrap_writes_its_secret_to_a_file_of_its_owner_only(
    installation: Installation,
) -> None:
    arguments = ("bootstrap", "--user", "root-one", "--secret-file", "secrets/first")
    done = run(installation, *arguments, module=True)
    assert done.returncode == 0
    file = installation.root / "secrets" / "first"
    secret = file.read_text().strip()
    assert len(secret) == 24
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert done.stdout == ""
    assert secret not in done.stderr
    assert "The secret in secrets/first works for one log-in" in done.stderr
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("user", ["", "two words\n"])
def test_bootstrap_refuses_an_invalid_user_name(installation: Installation, user: str) -> None:
    done = run(installation, "bootstrap", "--user", user)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"secure-server: [^\n]+\.\n", done.stderr)


def test_bootstrap_says_where_it_cannot_write(installation: Installation) -> None:
    done = run(installation, "bootstrap", "--secret-file", "secure-server.toml/secret")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("secure-server: secure-server.toml/secret: cannot write: ")


def test_the_ready_file_holds_the_bound_address_and_goes_with_the_server(
    installation: Installation,
) -> None:
    server = installation.start()
    try:
        text = server.ready_file.read_text()
        assert re.fullmatch(r"127\.0\.0\.1:[1-9][0-9]*\n", text)
        with installation.client().channel(text.strip()) as channel:
            request = token_service_pb2.GetKeySetRequest()
            assert TokenServiceStub(channel).GetKeySet(request, timeout=DEADLINE).keys
        drafts = list(installation.root.glob(f".{server.ready_file.name}*"))
        assert drafts == []
    finally:
        assert server.stop() == 0
    assert not server.ready_file.exists()


def test_without_an_option_the_file_in_the_current_folder_counts(
    installation: Installation,
) -> None:
    installation.config.write_text("[server]\nlisten = 7\n")
    done = run(installation, "serve", module=True)
    assert done.returncode == 1
    assert done.stderr.startswith("secure-server: secure-server.toml:2: server.listen ")


def test_a_state_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    """By a file in its place, which stops even the superuser."""
    installation = Installation(tmp_path)
    tmp_path.joinpath("state").write_text("a file")
    for command, names in (("serve", str(tmp_path / "state")), ("bootstrap", "database")):
        done = run(installation, command)
        assert done.returncode == 1, command
        said = [line for line in done.stderr.splitlines() if line.startswith("secure-server: ")]
        assert len(said) == 1, done.stderr
        assert names in said[0]
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_state_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    tmp_path.joinpath("state").mkdir(mode=0o500)
    done = run(installation, "serve")
    assert done.returncode == 1
    assert str(tmp_path / "state") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "how"), [("server.pem", "missing"), ("server.key", "folder"), ("ca.pem", "nonsense")]
)
def test_certificate_files_that_cannot_be_used_are_a_sentence(
    tmp_path: Path, name: str, how: str
) -> None:
    installation = Installation(tmp_path)
    file = tmp_path / "certs" / name
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "nonsense":
        file.write_bytes(b"-----BEGIN CERTIFICATE-----\nx\n")
    done = run(installation, "serve")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("secure-server: ")]
    assert len(said) == 1, done.stderr
    assert str(file) in said[0]
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_a_sentence(tmp_path: Path) -> None:
    first = Installation(_made(tmp_path / "first"))
    server = first.start()
    try:
        second = Installation(_made(tmp_path / "second"))
        second.config.write_text(f'[server]\nlisten = "{server.address}"\n')
        done = run(second, "serve")
    finally:
        server.stop()
    assert done.returncode == 1
    assert f"secure-server: Cannot listen on {server.address}: the port is taken" in done.stderr
    assert "Traceback" not in done.stderr


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


LOG_EVERYTHING = """
import logging, sys
import structlog
from secure_server.logs import set_up_logging
hostile = sys.argv[2]
set_up_logging(sys.argv[1], "info")
log = structlog.get_logger("test")
log.info(hostile, value=hostile, values=[hostile], mapping={hostile: hostile}, raw=hostile.encode())
logging.getLogger("library").error("library %s", hostile)
try:
    raise ValueError(hostile)
except ValueError:
    log.exception("ours")
    logging.getLogger("library").exception("theirs")
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_O3_no_text_breaks_out_of_its_log_line_not_even_in_a_traceback(form: str) -> None:
    """Nor in what libraries log. As text, a traceback's lines are indented, and no others."""
    hostile = HOSTILE.replace("\x00", "")  # no argument of a command can hold a NUL
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOG_EVERYTHING, form, hostile],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    text = done.stderr.decode()
    assert done.returncode == 0, text
    assert done.stdout == b""
    assert all(character.isprintable() or character == "\n" for character in text)
    lines = text.splitlines()
    if form == "json":
        entries = [json.loads(line) for line in lines]
        assert [e["event"] for e in entries] == [hostile, f"library {hostile}", "ours", "theirs"]
        assert entries[0]["value"] == hostile
        assert all(hostile in e["exception"] for e in entries[2:])
    else:
        stamp = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[")
        heads = [line for line in lines if not line.startswith("    ")]
        assert all(stamp.match(line) for line in heads), text
        assert len(heads) == 4
        assert text.count("ValueError") >= 2
