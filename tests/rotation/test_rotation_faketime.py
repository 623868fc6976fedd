"""The day a certificate expires, by the clock of a machine on which it has come."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.running import Installation

pytestmark = pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is missing")


def serve(installation: Installation, offset: str) -> subprocess.Popen[str]:
    """Start the server on a machine whose clock is ahead."""
    script = Path(sys.executable).with_name("secure-server")
    return subprocess.Popen(
        ["faketime", "-f", offset, str(script), "serve", "--config", str(installation.config)],
        cwd=installation.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_an_expired_certificate_does_not_start_and_says_what_to_do(tmp_path: Path) -> None:
    server = serve(Installation(tmp_path), "+100d")
    _, text = server.communicate(timeout=60)
    assert server.returncode == 1
    assert "server.pem expired on" in text
    assert "secure-certs renew" in text
    assert "Traceback" not in text


def test_a_certificate_near_its_end_is_a_warning_in_the_log_and_in_healthz(tmp_path: Path) -> None:
    installation = Installation(tmp_path, settings='[http]\nlisten = "127.0.0.1:0"\n')
    server = serve(installation, "+85d")
    try:
        assert server.stderr is not None
        lines = []
        while "serving" not in (line := json.loads(server.stderr.readline()))["event"]:
            lines.append(line["event"])
        assert "the server certificate is near its end: renew it" in lines
        page = httpx.get(f"http://{line['http']}/healthz", timeout=10)
        assert page.status_code == 200
        (warning,) = page.json()["warnings"]
        assert re.fullmatch(r"The server certificate ends in (4\.9|5\.0) days\.", warning)
    finally:
        # Time-outs of locks do not agree with such a clock: it may not stop by itself.
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate(timeout=60)
