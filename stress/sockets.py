"""``python -m stress.sockets``: more silent sockets than the server has descriptors for."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_seconds
from tests.support.running import Installation, Running, ServerProcess

HTTP = '\n[http]\nlisten = "127.0.0.1:0"\n'
PAGES = ("/healthz", "/metrics", "/.well-known/jwks.json")

_CONNECTED = 0.05  # seconds

_MEANINGS = {
    "seconds": "for which the sockets were held open",
    "descriptors": "that the server had open, at the most",
    "pages": "of health, metrics and keys that were asked for meanwhile",
    "pages_failed": "of these, not answered with 200 within three seconds",
    "page_ms_max": "",
    "core_percent": "of one core, used by the server",
    "log_bytes": "written to standard error meanwhile",
    "log_in_ms": "after the sockets were closed",
}


@dataclass
class Figures:
    """The figures."""

    seconds: float = 0.0
    descriptors: int = 0
    pages: int = 0
    pages_failed: int = 0
    page_ms_max: float = 0.0
    core_percent: float = 0.0
    log_bytes: int = 0
    log_in_ms: float = 0.0
    failures: list[str] = field(default_factory=list)


def limited(root: Path, descriptors: int) -> Installation:
    """Install a server with the HTTP page and a limit of descriptors."""
    return Installation(root, settings=HTTP, before=f"ulimit -n {descriptors}")


def http_address(server: ServerProcess) -> str:
    """Return the HOST:PORT of the HTTP page, from the log."""
    found = re.search(r'"http": ?"([^"]+)"', server.log)
    assert found is not None, server.log
    return found[1]


@contextmanager
def silent_sockets(address: str, count: int) -> Iterator[Sequence[socket.socket]]:
    """Open ``count`` connections, and send nothing. A refused connection counts too."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as opened:
        sockets = []
        for _ in range(count):
            one = opened.enter_context(socket.socket())
            one.setblocking(False)  # noqa: FBT003
            one.connect_ex((host, int(port)))
            sockets.append(one)
            # One after the other: what a full queue of the kernel drops comes a second later.
            connecting = select.poll()  # select() knows the first 1,024 descriptors alone
            connecting.register(one, select.POLLOUT)
            connecting.poll(_CONNECTED * 1000)
        yield sockets


def flood(running: Running, target: str, *, sockets: int, seconds: float) -> Figures:
    """Hold silent sockets to ``target`` (HOST:PORT), and ask for the pages meanwhile."""
    server, figures = running.server, Figures()
    pid, page = server.process.pid, f"http://{http_address(server)}"
    written, used, begin = server.log_file.stat().st_size, cpu_seconds(pid), time.monotonic()
    # A new connection for each page: a kept one would not test accepting.
    with silent_sockets(target, sockets), httpx.Client(trust_env=False, timeout=3) as client:
        while time.monotonic() - begin < seconds:
            for path in PAGES:
                asked = time.monotonic()
                try:
                    reply = client.get(page + path, headers={"connection": "close"})
                    reply.raise_for_status()
                except httpx.HTTPError as error:
                    figures.pages_failed += 1
                    figures.failures.append(f"{path}: {error!r}")
                figures.pages += 1
                figures.page_ms_max = max(figures.page_ms_max, (time.monotonic() - asked) * 1000)
            open_now = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
            figures.descriptors = max(figures.descriptors, open_now)
            time.sleep(0.1)
        figures.seconds = time.monotonic() - begin
        figures.core_percent = (cpu_seconds(pid) - used) / figures.seconds * 100
        figures.log_bytes = server.log_file.stat().st_size - written
    begin = time.monotonic()
    running.admin_token()
    figures.log_in_ms = (time.monotonic() - begin) * 1000
    return figures


def main(
    *,
    sockets: Annotated[int, typer.Option(min=1, help="Sockets to open.")] = 400,
    descriptors: Annotated[int, typer.Option(min=100, help="The server's limit.")] = 300,
    seconds: Annotated[float, typer.Option(min=1, help="For which they stay open.")] = 10.0,
    http: Annotated[bool, typer.Option(help="To the HTTP page, instead of gRPC's port.")] = False,
) -> None:
    """Flood a server with sockets that never send anything. The last line is JSON.

    Exits with 1 if a page was not answered.
    """
    with tempfile.TemporaryDirectory(prefix="sockets-") as folder:
        installation = limited(Path(folder), descriptors)
        secret = installation.bootstrap()
        server = installation.start()
        try:
            running = Running(installation, server, secret)
            running.admin_token()
            target = http_address(server) if http else server.address
            figures = flood(running, target, sockets=sockets, seconds=seconds)
        finally:
            server.stop()
    table = Table("figure", "", "meaning", title=f"{sockets} sockets, {descriptors} descriptors")
    table.columns[1].justify = "right"
    for name, meaning in _MEANINGS.items():
        table.add_row(name, f"{getattr(figures, name):.4g}", meaning)
    Console(highlight=False).print(table)
    print(json.dumps({"sockets": sockets, "limit": descriptors} | asdict(figures)))
    if figures.pages_failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
