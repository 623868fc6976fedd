"""``python -m stress.health_watch``: streams opened and cancelled as fast as possible.

Against the server of this repository (``Health/Watch``), and against a guarded servicer whose
callbacks wait for a lock that a sender holds. It measures the latency of other callers meanwhile,
and whether SIGTERM still ends the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from stress.servicer import GRACE, SERVICE
from tests.support.running import ClientFiles, Installation, ServerProcess

GOAL_MS = 50.0
"""Milliseconds: the 99th percentile of unary calls beside the watches."""

_LEFT_OPEN = 8  # watches that are open when the server is told to stop
_EVERY = 0.005  # seconds between two calls of a caller beside
_FROZEN = 10.0  # seconds without an answer

_HEALTH = "grpc.health.v1.Health"
_CONFIG = """\
[tls]
certificate = "certs/server.pem"
private_key = "certs/server.key"
client_ca = "certs/ca.pem"

[[authenticators]]
type = "certificate"

[policy]
file = "everyone.json"
"""
_POLICY = '{"name": "stress", "allow_rules": [{"name": "everyone"}]}'

WATCHES = {
    "service": [f"/{_HEALTH}/Watch"],
    "servicer": [f"/{SERVICE}/Watch", f"/{SERVICE}/WatchInTurn"],
}
CHECKS = {"service": f"/{_HEALTH}/Check", "servicer": f"/{SERVICE}/Check"}


def _start_servicer(installation: Installation) -> ServerProcess:
    root = installation.root
    (root / "servicer.toml").write_text(_CONFIG, encoding="utf-8")
    (root / "everyone.json").write_text(_POLICY, encoding="utf-8")
    ready, log = root / "ready-servicer", root / "servicer.log"
    command = [sys.executable, "-m", "stress.servicer", str(root / "servicer.toml"), str(ready)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    server = ServerProcess(process, ready, log)
    try:
        server.wait_until_ready()
    except BaseException:
        server.kill()
        raise
    return server


class Beside:
    """A caller of a unary method, who notes how long each answer takes."""

    def __init__(self, address: str, files: ClientFiles, path: str) -> None:
        self.milliseconds: list[float] = []
        self.failed: list[str] = []
        self._over = threading.Event()
        self._channel = files.channel(address)
        self._call: Any = self._channel.unary_unary(path)
        self._call(b"", timeout=_FROZEN, wait_for_ready=True)  # the handshake does not count
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not (self.failed or self._over.wait(_EVERY)):
            begun = time.perf_counter()
            try:
                self._call(b"", timeout=_FROZEN)
            except grpc.RpcError as error:
                self.failed.append(f"{error.code().name} {error.details()}")
            self.milliseconds.append((time.perf_counter() - begun) * 1000)

    @contextmanager
    def calling(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
            self._channel.close()

    def percentile(self, percent: float) -> float:
        """Return the milliseconds in which so many of a hundred calls were answered."""
        ordered = sorted(self.milliseconds)
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))], 1)


def measure(kind: str, server: ServerProcess, files: ClientFiles, run: dict[str, int]) -> Any:
    """Open and cancel, and stop the server; return figures. Ends the server in any case."""
    names = [str(files.certificate), str(files.private_key), str(files.ca)]
    wanted = {"address": server.address, "files": names, "paths": WATCHES[kind], **run}
    try:
        beside = Beside(server.address, files, CHECKS[kind])
        with beside.calling():
            # A process of its own: in this one its threads would slow the measured caller.
            done = subprocess.run(
                [sys.executable, "-m", "stress.watchers", json.dumps(wanted)],
                capture_output=True,
                text=True,
                check=True,
            )
        figures = json.loads(done.stdout)
        with files.channel(server.address) as channel:
            method: Any = channel.unary_stream(WATCHES[kind][0])
            calls = [method(b"") for _ in range(_LEFT_OPEN)]
            stopping = time.monotonic()
            try:
                status = server.stop(timeout=GRACE + 5)
            except subprocess.TimeoutExpired:
                status = None  # it had to be killed
            stopped = round(time.monotonic() - stopping, 2)
            for call in calls:
                call.cancel()
    finally:
        server.kill()
    return {
        **figures,
        "others": len(beside.milliseconds),
        "others_failed": beside.failed,
        "others_p50_ms": beside.percentile(50),
        "others_p99_ms": beside.percentile(99),
        "others_max_ms": beside.percentile(100),
        "stop_seconds": stopped,
        "stop_status": status,
    }


def is_alive(figures: Any) -> bool:
    """Whether all calls were answered, and the server ended by itself."""
    return not figures["failed"] and not figures["others_failed"] and figures["stop_status"] == 0


def main(
    *,
    watches: Annotated[int, typer.Option(min=1, help="Streams to open, of each server.")] = 10_000,
    threads: Annotated[int, typer.Option(min=1, help="Threads that open and cancel.")] = 4,
    server: Annotated[str, typer.Option(help="service, servicer, or both.")] = "both",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Open and cancel streams; exits with 1 if a server froze. A missed goal is only reported."""
    kinds = list(WATCHES) if server == "both" else [server]
    report = {}
    with tempfile.TemporaryDirectory(prefix="stress-") as name:
        installation = Installation(Path(name))
        files = installation.client("watcher")
        for kind in kinds:
            started = installation.start() if kind == "service" else _start_servicer(installation)
            report[kind] = measure(kind, started, files, {"watches": watches, "threads": threads})
            if not as_json:
                _print(kind, report[kind])
    if as_json:
        print(json.dumps(report, indent=2))
    if not all(is_alive(figures) for figures in report.values()):
        raise typer.Exit(1)


def _print(kind: str, figures: Any) -> None:
    print(
        f"{kind}: {'alive' if is_alive(figures) else 'FROZEN'}\n"
        f"  watches opened and cancelled  {figures['cancelled']:,} in {figures['seconds']} s"
        f"{''.join(f', then {each}' for each in figures['failed'][:1])}\n"
        f"  others' unary calls           {figures['others']:,}: p50 {figures['others_p50_ms']} ms,"
        f" p99 {figures['others_p99_ms']} ms (goal {GOAL_MS:.0f}),"
        f" longest {figures['others_max_ms']} ms\n"
        f"  SIGTERM                       ended after {figures['stop_seconds']} s with"
        f" {figures['stop_status']} (grace {GRACE:.0f} s)",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
