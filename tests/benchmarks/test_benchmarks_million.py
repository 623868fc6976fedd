"""A server starts on many live revocations, and misses none that is made meanwhile."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_is_revoked_while_a_server_loads_the_others_is_refused_by_its_first_calls():
    options = ["--revocations", "20000", "--rounds", "1", "--calls", "50"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.million", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["revocations"] == 20_000
    assert figures["revoked_while_loading"] > 0
    assert figures["missed_while_loading"] == 0
    # Nothing here is about time, which needs quiet; memory does not.
    assert 0 < figures["bytes_per_revocation"] < 400
