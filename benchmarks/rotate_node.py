"""``python -m benchmarks.rotate_node``: another language's client, without retries, through
rotations of the server's certificate.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from tests.support.running import Installation

_NODE = Path(__file__).parents[1] / "tests/interop/node"
_RETIRE = "6"


def main(
    *,
    rotations: Annotated[int, typer.Option(min=1, help="Renewals of the certificate.")] = 20,
    callers: Annotated[int, typer.Option(min=1, help="Connections that call at once.")] = 8,
) -> None:
    """Renew the server's certificate once a second while @grpc/grpc-js calls; count what failed.

    Exits with 1 if a call failed, and with 2 where Node or the package is missing. The last line is
    JSON.
    """
    if shutil.which("node") is None or not (_NODE / "node_modules/@grpc/grpc-js").is_dir():
        typer.echo(f"Needs Node and its package: npm ci --prefix {_NODE}", err=True)
        raise typer.Exit(2)
    with tempfile.TemporaryDirectory(prefix="rotate-") as folder:
        installation = Installation(
            Path(folder), environment={"SECURE_SERVER_SERVER__RETIRE": _RETIRE}
        )
        server = installation.start()
        files = installation.client("admin")
        settings = {
            "address": server.address.replace("127.0.0.1", "localhost"),
            "ca": str(files.ca),
            "certificate": str(files.certificate),
            "private_key": str(files.private_key),
            "callers": callers,
        }
        with subprocess.Popen(
            ["node", "steady.js"],
            cwd=_NODE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as node:
            assert node.stdin is not None
            node.stdin.write(json.dumps(settings) + "\n")
            node.stdin.flush()
            first = _shown(server.address, set())
            served: set[str] = set()
            for _ in range(rotations):
                time.sleep(1)
                installation.renew("server")
                served.add(_shown(server.address, {first, *served}))
            time.sleep(float(_RETIRE) + 2)  # until the last but one has retired
            output, _ = node.communicate()
        server.stop()
    outcome = json.loads(output)
    failed = sum(outcome["failed"].values())
    for what, many in outcome["failed"].items():
        print(f"failed {many}: {what}")
    figures = {
        "rotations": rotations,
        "rotations_seen": len(served - {""}),
        "calls": outcome["calls"],
        "failed": failed,
    }
    print(json.dumps(figures))
    if failed or figures["rotations_seen"] != rotations:
        raise typer.Exit(1)


def _shown(address: str, known: set[str]) -> str:
    """Return the certificate that fresh connections get, once it is another one."""
    host, _, port = address.rpartition(":")
    before = set(known)
    for _ in range(200):
        try:
            shown = ssl.get_server_certificate((host, int(port)))
        except OSError:
            continue
        if shown not in before:
            return shown
        time.sleep(0.05)
    return ""


if __name__ == "__main__":
    typer.run(main)
