"""``python -m benchmarks.instructions``: processor instructions per unary call.

Times on a shared machine vary by more than a careless change costs. valgrind counts instructions, a
hundred times slower, and its counts vary by less than a hundredth.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from itertools import repeat
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.credentials import prepare
from benchmarks.http2 import Client
from benchmarks.measure import PAYLOAD
from benchmarks.servers import UNARY, Guarded, Server

_IN_FLIGHT = 8
_WARM = 100
SERVERS = {
    "bare": Server("bare"),
    "usual interceptor": Server("usual"),
    "guard": Server(Guarded()),
}


def count(server: Server, folder: Path, authorization: str, calls: int) -> int:
    """Return the instructions of one unary call, all threads of the server together.

    Raises ``RuntimeError`` where the server does not start under valgrind.
    """
    counts = Path(tempfile.mkdtemp(dir=folder))
    log = counts / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}/out"),
                *(sys.executable, "-m", "benchmarks.serve", json.dumps(asdict(server))),
                *(str(folder), "null"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"A server did not start:\n{log.read_text()[-4000:]}")
    client = Client(
        int(line),
        folder=folder,
        method=UNARY,
        payload=PAYLOAD,
        authorizations=repeat(authorization),
    )
    client.unary(_WARM, _IN_FLIGHT)
    _control(process.pid, "--zero")
    client.unary(calls, _IN_FLIGHT)
    _control(process.pid, "--dump")
    client.close()
    process.communicate(timeout=120)  # ends its standard input
    (dump,) = counts.glob("out.1")
    (summary,) = (
        one for one in dump.read_text("utf-8", "replace").splitlines() if "summary:" in one
    )
    return int(summary.split()[1]) // calls


def _control(process: int, what: str) -> None:
    subprocess.run(["callgrind_control", what, str(process)], capture_output=True, check=True)


def main(
    *,
    calls: Annotated[int, typer.Option(min=1, help="Calls per server.")] = 600,
    only: Annotated[str | None, typer.Option(help="The name of one server.")] = None,
) -> None:
    """Count instructions per call: a bare mTLS server, the usual interceptor, the guard."""
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing, which counts them: install the package valgrind.")
    with tempfile.TemporaryDirectory(prefix="instructions-") as name:
        folder = Path(name)
        tokens = prepare(folder)
        bare = 0
        for title, server in SERVERS.items():
            if only in (None, title):
                found = count(server, folder, f"Bearer {tokens.good}", calls)
                bare = bare or found
                print(f"{title:24} {found / 1000:8.1f} thousand  {found / bare:6.3f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
