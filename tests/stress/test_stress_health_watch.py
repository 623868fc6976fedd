"""The short form of ``python -m stress.health_watch``; nothing here is about time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("server", ["service", "servicer"])
def test_M9_streams_that_are_opened_and_cancelled_freeze_no_server(server: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stress.health_watch", "--json"),
            *("--watches", "300", "--threads", "4", "--server", server),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stdout, done.stderr
    figures = json.loads(done.stdout)[server]
    assert (figures["cancelled"], figures["failed"], figures["others_failed"]) == (300, [], [])
    assert figures["stop_status"] == 0
    assert done.returncode == 0
