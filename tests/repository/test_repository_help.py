"""Help and version load no more than the command line itself: what a command needs, it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("command", ["secure-server", "secure-client", "secure-certs"])
def test_what_cannot_be_printed_is_said_in_a_sentence(command: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [Path(sys.executable).with_name(command), "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode in {1, 2}
    assert done.stderr.endswith(": The system: No space left on device.\n")
    assert done.stderr.count("\n") == 1


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
