"""``secure-server policy`` on the base install: without what the identity service needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_SERVERS_OWN = "sqlalchemy", "alembic", "cheroot", "prometheus_client", "yaml", "grpc_health"
_PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({_SERVERS_OWN}))  # importing one of them is an ImportError
from secure_server.cli.policy import policy_app
early = {{"pydantic", "google.protobuf", "grpc"}} & set(sys.modules)
assert not early, early
policy_app(sys.argv[1:])
"""

CASE = {"id": "a", "method": "/a", "expect": "allow", "rule": "r"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "policy.json").write_text('{"name": "p", "allow_rules": [{"name": "r"}]}')
    (folder / "cases.json").write_text(json.dumps([CASE]))
    (folder / "cases.yaml").write_text(json.dumps([CASE]))
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "policy.json"], "0 errors, 0 warnings\n"),
        (["explain", "policy.json", "--method", "/a"], 'ALLOWED by the allow rule "r", line 1.'),
        (["test", "policy.json", "cases.json"], "cases.json: 1 case, none differing\n"),
    ],
)
def test_the_commands_need_no_store_and_import_what_they_need_when_they_run(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


def test_cases_in_yaml_say_what_they_need(tmp_path: Path) -> None:
    done = run(tmp_path, "test", "policy.json", "cases.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "secure-server: cases.yaml: reading YAML needs the package pyyaml. Install it, or write "
        "the cases in JSON, in a file that ends in .json.\n"
    )
