"""``python -m benchmarks.million``: what a million live revocations cost a server."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from benchmarks.http2 import Client, Tally
from benchmarks.machine import cores, cpu_seconds, move_to, server_core, stay_away_from
from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_server.auth.local_issuer import MAX_TOKEN_LIFETIME
from secure_server.sections import TokensSection
from secure_server.store.database import Database
from secure_server.store.schema import revocations
from secure_server.tokens.revoked import RevocationKind
from tests.support.running import DEADLINE, Installation, ServerProcess, bearer

GOAL = 1.05
"""The most that a call may cost, as a ratio to the same call without revocations."""

_CALLER = "caller"
_SETTINGS = f"""
[tokens]
access_token_lifetime = 3600
[[workloads]]
spiffe_id = "spiffe://example.org/client/{_CALLER}"
"""
_METHOD = "/secure_api.tokens.v1.TokenService/WhoAmI"
_IN_FLIGHT = 32
_BATCH = 20_000
_LEAST_LEFT = 1800.0  # seconds that a revocation has to live: more than the run
_PAUSE = 0.01  # seconds between two revocations while another process loads
_MOST_WHILE_LOADING = 500
_ANY_PORT = "127.0.0.1:0"
_MEANINGS = {
    "revocations": "live in the store, tokens and sessions in equal parts",
    "seconds_until_serving": "from the start of the process",
    "seconds_until_serving_without": "the same on an empty store",
    "load_seconds": "the difference",
    "load_cpu_seconds": "the same of CPU, which a busy machine changes less",
    "memory_mb": "resident, once serving",
    "memory_mb_peak": "the most until then",
    "memory_mb_without": "resident on an empty store",
    "bytes_per_revocation": "the difference of both, for each",
    "revoked_while_loading": "acknowledged by one process before another one listened",
    "missed_while_loading": "of these, served by the other's first calls",
    "microseconds_per_call": "server CPU, as the others are there",
    "microseconds_per_call_without": "the same call on an empty store",
    "ratio": f"median of the ratios of each round; goal {GOAL}",
    "ratio_min": "",
    "ratio_max": "",
}


@dataclass(frozen=True)
class _Started:
    """A running server, and what its start cost."""

    server: ServerProcess
    seconds: float
    cpu: float
    memory: int
    memory_peak: int

    @classmethod
    def of(cls, installation: Installation) -> _Started:
        begin = time.monotonic()
        with _on_the_servers_core():
            server = installation.start()
        seconds = time.monotonic() - begin
        pid = server.process.pid
        return cls(server, seconds, cpu_seconds(pid), _memory(pid, "VmRSS"), _memory(pid, "VmHWM"))


class Million:
    """Two installations: one with many revocations, one without."""

    def __init__(self, root: Path, *, count: int, say: Callable[[str], None]) -> None:
        self._say = say
        self._count = count
        self._installations = [self._install(root / name) for name in ("empty", "full")]

    def run(self, *, rounds: int, calls: int) -> dict[str, float]:
        """Measure, and return the figures by name."""
        empty, full = self._installations
        self._say(f"Writing {self._count:,} revocations ...")
        for installation, count in ((empty, 0), (full, self._count)):
            _fill(installation.root / "state/secure-grpc.db", count)
        self._say("Starting ...")
        with _ended() as servers:
            without = _Started.of(empty)
            servers.append(without.server)
            much = _Started.of(full)
            servers.append(much.server)
            told, missed = self._revoke_while_loading(full, much.server, servers)
            self._say("Calling ...")
            stay_away_from(server_core())
            figures: dict[str, list[float]] = {"full": [], "empty": []}
            pair = [("full", full, much.server), ("empty", empty, without.server)]
            for _ in range(rounds):
                for name, installation, server in pair:
                    figures[name].append(self._cost(installation, server, calls))
                pair.reverse()  # so that a drift favours none
        ratios = [more / less for more, less in zip(*figures.values(), strict=True)]
        return {
            "revocations": self._count,
            "seconds_until_serving": round(much.seconds, 2),
            "seconds_until_serving_without": round(without.seconds, 2),
            "load_seconds": round(much.seconds - without.seconds, 2),
            "load_cpu_seconds": round(much.cpu - without.cpu, 2),
            "memory_mb": round(much.memory / 1e6),
            "memory_mb_peak": round(much.memory_peak / 1e6),
            "memory_mb_without": round(without.memory / 1e6),
            "bytes_per_revocation": round((much.memory - without.memory) / self._count),
            "revoked_while_loading": told,
            "missed_while_loading": missed,
            "microseconds_per_call": round(median(figures["full"])),
            "microseconds_per_call_without": round(median(figures["empty"])),
            "ratio": round(median(ratios), 3),
            "ratio_min": round(min(ratios), 3),
            "ratio_max": round(max(ratios), 3),
        }

    def _install(self, root: Path) -> Installation:
        root.mkdir()
        installation = Installation(root, settings=_SETTINGS)
        files = installation.client(_CALLER)
        load = root / "load"  # the layout that the client expects
        load.mkdir(mode=0o700)
        for name, path in (
            ("ca.pem", files.ca),
            ("client.pem", files.certificate),
            ("client.key", files.private_key),
        ):
            shutil.copy(path, load / name)
        return installation

    def _revoke_while_loading(
        self, installation: Installation, serving: ServerProcess, servers: list[ServerProcess]
    ) -> tuple[int, int]:
        """Revoke one token after the other until another process listens, and call it with them.

        Returns how many were acknowledged before it listened, and how many of them were served.
        """
        port = _free_port()
        text = installation.config.read_text(encoding="utf-8")
        installation.config.write_text(text.replace(_ANY_PORT, f"127.0.0.1:{port}"), "utf-8")
        files = installation.client(_CALLER)
        with files.channel(serving.address) as channel:
            stub = TokenServiceStub(channel)
            mine, *others = (_issue(stub) for _ in range(_MOST_WHILE_LOADING + 1))
            told = []
            loading = installation.spawn()
            servers.append(loading)
            for token in others:
                request = pb.RevokeTokenRequest(token=token)
                stub.RevokeToken(request, metadata=bearer(mine), timeout=DEADLINE)
                if _listens(port):
                    break  # this one may have come too late
                told.append(token)
                time.sleep(_PAUSE)
            loading.wait_until_ready()
        with files.channel(loading.address) as channel:
            stub = TokenServiceStub(channel)
            # The last one first: it had the least time to arrive.
            missed = sum(_is_served(stub, token) for token in reversed(told))
            if not _is_served(stub, mine):
                raise RuntimeError("A token that was not revoked is refused.")
        return len(told), missed

    def _cost(self, installation: Installation, server: ServerProcess, calls: int) -> float:
        """Return microseconds of the server's CPU per call, with a token that is new to it."""
        with installation.client(_CALLER).channel(server.address) as channel:
            stub = TokenServiceStub(channel)
            token = _issue(stub)
            answer = stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token), timeout=DEADLINE)
        client = Client(
            int(server.address.rpartition(":")[2]),
            folder=installation.root / "load",
            method=_METHOD,
            payload=_padded(answer.ByteSize()),
            authorizations=repeat(f"Bearer {token}"),
        )
        try:
            # The setup of a connection is not counted.
            client.unary(max(_IN_FLIGHT, calls // 10), _IN_FLIGHT)
            before = cpu_seconds(server.process.pid)
            tally = client.unary(calls, _IN_FLIGHT)
            used = cpu_seconds(server.process.pid) - before
        finally:
            client.close()
        if tally != Tally(calls, 0):
            raise RuntimeError(f"{tally}: all calls should have been served.")
        return used / calls * 1e6


def _fill(path: Path, count: int) -> None:
    database = Database.open(f"sqlite:///{path}")
    now, last = time.time(), MAX_TOKEN_LIFETIME
    kinds = (RevocationKind.JTI, RevocationKind.SESSION)
    try:
        with database.write() as connection:
            for start in range(0, count, _BATCH):
                batch = [
                    {
                        "issuer": TokensSection().issuer,
                        "kind": kinds[number % 2].value,
                        "value": str(uuid.uuid4()),
                        "expire_time": now + random.uniform(_LEAST_LEFT, last),
                        "issued_until": None,
                    }
                    for number in range(start, min(start + _BATCH, count))
                ]
                connection.execute(insert(revocations), batch)
    finally:
        database.close()


@contextmanager
def _ended() -> Iterator[list[ServerProcess]]:
    servers: list[ServerProcess] = []
    try:
        yield servers
    finally:
        for server in servers:
            server.kill()


@contextmanager
def _on_the_servers_core() -> Iterator[None]:
    """Run processes started inside on that core, and this process on others, if there are two."""
    before, core = cores(), server_core()
    move_to(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=DEADLINE):
        return True
    return False


def _issue(stub: TokenServiceStub) -> str:
    token: str = stub.IssueToken(pb.IssueTokenRequest(), timeout=DEADLINE).access_token
    return token


def _is_served(stub: TokenServiceStub, token: str) -> bool:
    try:
        stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(token), timeout=DEADLINE)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return False
        raise
    return True


def _padded(size: int) -> bytes:
    """Return an empty message of that size: the client knows messages of one size only.

    An unknown field fills it, of number 2047 and with a length of two bytes.
    """
    length = size - 4
    assert 128 <= length < 2**14
    return bytes([0xFA, 0x7F, length & 0x7F | 0x80, length >> 7]) + bytes(length)


def _memory(pid: int, which: str) -> int:
    """Return a size of a process, in bytes (proc_pid_status(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == which:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"The kernel does not tell the {which} of a process.")


def main(
    *,
    revocations: Annotated[int, typer.Option(min=2, help="How many are live.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the ratio is their median.")] = 40,
    calls: Annotated[int, typer.Option(min=1, help="Calls per server and round.")] = 500,
) -> None:
    """Start `secure-server` on a store full of live revocations, and on an empty one; call both.

    Exits with 1 if a revocation was missed that was made while a server loaded them. A missed goal
    is reported, not an error. The last line is JSON.
    """
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="million-") as folder:
        million = Million(Path(folder), count=revocations, say=console.print)
        figures = million.run(rounds=rounds, calls=calls)
    table = Table("figure", "", "meaning", title=f"{revocations:,} live revocations")
    table.columns[1].justify = "right"
    for name, value in figures.items():
        table.add_row(name, f"{value:,}", _MEANINGS[name])
    console.print(table)
    console.print(f"ratio: {'met' if figures['ratio'] <= GOAL else 'missed'}")
    console.print(f"load average {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    print(json.dumps(figures))
    if figures["missed_while_loading"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
