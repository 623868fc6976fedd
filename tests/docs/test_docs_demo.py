"""`make demo`, the first command of the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"


def test_the_demo_ends_well_as_a_job_in_the_background_too() -> None:
    """Of a shell that is not interactive: such a job, and what it starts, ignores SIGINT."""
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, DEMO],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 calls of 4 kinds served, 6 refused" in done.stdout.splitlines()[-1]
