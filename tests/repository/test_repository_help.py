"""Help and version load no more than the command line itself: what a command needs, it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

HEAVY = (
    "grpc",
    "google",
    "pydantic",
    "structlog",
    "cryptography",
    "sqlalchemy",
    "rich",
    "yaml",
    "jwt",
)
RUN = """
import sys
from pathlib import Path
from {module} import main
try:
    sys.argv[1:] = {arguments}
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules, sep="\\n", file=sys.stderr)
"""


@pytest.mark.parametrize("module", ["secure_server.cli", "secure_client.cli"])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_the_command_line_alone(module: str, option: str) -> None:
    script = RUN.format(module=module, arguments=[option])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert loaded & set(HEAVY) == set()


COMMANDS = ["secure-server", "secure-client", "secure-certs"]


def help_into(output: IO[str] | int, command: str, *, buffered: bool) -> tuple[int, str]:
    """Exit status and standard error of ``--help``, whose standard output goes there."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [Path(sys.executable).with_name(command), "--help"],
        stdout=output,
        stderr=subprocess.PIPE,
        env=environment | ({} if buffered else {"PYTHONUNBUFFERED": "1"}),
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_printed_is_said_in_a_sentence(command: str, *, buffered: bool) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        code, said = help_into(full, command, buffered=buffered)
    assert code in {1, 2}
    assert said.endswith(": The system: No space left on device.\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_closed_the_pipe_is_no_error_to_speak_of(
    command: str, *, buffered: bool
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert help_into(writer, command, buffered=buffered) == (1, "")
    finally:
        os.close(writer)


def test_a_command_without_standard_output_says_what_is_wrong_all_the_same() -> None:
    script = "import os\nos.close(1)\nos.execv(sys.executable, [sys.executable, '-c', CODE])"
    code = (
        "from secure_base.terminal import whole_output\n"
        "with whole_output():\n    open('/none-such')"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nCODE = {code!r}\n{script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.endswith("No such file or directory: '/none-such'\n")
    assert "AttributeError" not in done.stderr


def test_what_the_encoding_of_a_terminal_lacks_is_escaped(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"name": "p", "allow_rules": [{"name": "für alle"}]}', encoding="utf-8")
    command = Path(sys.executable).with_name("secure-server")
    done = subprocess.run(
        [command, "policy", "explain", policy, "--method", "/a.B/C"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "f\\xfcr alle" in done.stdout, done.stderr
