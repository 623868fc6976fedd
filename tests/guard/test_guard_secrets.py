"""The log of a plug-in's exception in an application that configures no logging."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys, tempfile
from pathlib import Path
sys.path[:0] = ["tests", "."]
from secure_server.auth.matchers import Scheme
from support.door import ask, open_door

class Raising:
    name = "raising"
    matchers = (Scheme("raise"),)
    def authenticate(self, credentials, peer):
        copy = credentials.value
        raise RuntimeError("broken")

with tempfile.TemporaryDirectory() as folder, open_door(Path(folder), before=(Raising(),)) as door:
    token = door.token()
    print(ask(door.channel(), "unary_unary", f"Raise {token}").code.name)
    print(token)
"""


def test_K10_a_failing_plug_in_puts_no_token_into_the_log_of_an_unconfigured_application() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    status, token = done.stdout.split()
    assert status == "INTERNAL"
    assert "broken" in done.stderr
    assert token not in done.stderr
    assert token.rpartition(".")[2] not in done.stderr.replace("\n", "")
