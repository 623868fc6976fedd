"""``python -m stress.revoke_client``: a gateway with many sessions is revoked under load."""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.table import Table

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from tests.support.running import DEADLINE, Installation, Running, bearer

GATEWAY = "spiffe://example.org/client/gateway"

_MEANINGS = {
    "sessions": "of the gateway, when it was revoked",
    "answered_ms": "until RevokeClient was answered: from then on all its tokens are refused",
    "deleted_ms": "until the last of its sessions was deleted",
    "lock_ms_max": "the longest that another process waited for the write lock meanwhile",
    "lock_ms_median": "",
    "reads": "of others meanwhile (ListUsers)",
    "read_ms_p99": "",
    "writes": "of others meanwhile (CreateUser)",
    "write_ms_p99": "",
    "failed": "of these reads and writes",
}


@dataclass
class Figures:
    """The figures; times are in milliseconds."""

    sessions: int = 0
    answered_ms: float = 0.0
    deleted_ms: float = 0.0
    lock_ms: list[float] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)
    write_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return the numbers of the table."""
        return {
            "sessions": self.sessions,
            "answered_ms": self.answered_ms,
            "deleted_ms": self.deleted_ms,
            "lock_ms_max": max(self.lock_ms),
            "lock_ms_median": statistics.median(self.lock_ms),
            "reads": len(self.read_ms),
            "read_ms_p99": _p99(self.read_ms),
            "writes": len(self.write_ms),
            "write_ms_p99": _p99(self.write_ms),
            "failed": len(self.failures),
        }


def store_of(installation: Installation) -> Path:
    """Return the file of the store."""
    return installation.root / "state" / "secure-grpc.db"


def add_sessions(store: Path, spiffe_id: str, user: str, count: int) -> None:
    """Write sessions of a user as the server would, without so many log-ins."""
    now = time.time()
    with sqlite3.connect(store, timeout=DEADLINE) as database:
        (uid,) = database.execute("SELECT uid FROM users WHERE name = ?", (user,)).fetchone()
        database.executemany(
            "INSERT INTO sessions (session_id, user_uid, spiffe_id, family_hash, token_hash, "
            "create_time, expire_time, end_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (str(uuid.uuid4()), uid, spiffe_id, number.to_bytes(32), b"", now - 60, *ends)
                for number in range(count)
                for ends in [(now + 3600, now + 7200)]
            ),
        )
    database.close()


def count_sessions(store: Path, spiffe_id: str) -> int:
    """Return how many sessions of a client are in the store, dead or alive."""
    database = sqlite3.connect(store, timeout=DEADLINE)
    query = "SELECT count(*) FROM sessions WHERE spiffe_id = ?"
    (count,) = database.execute(query, (spiffe_id,)).fetchone()
    database.close()
    return int(count)


@contextmanager
def _repeating(step: Callable[[int], None], took: list[float], failed: list[str]) -> Iterator[None]:
    """Repeat an action on another thread, until the block ends."""
    over = threading.Event()

    def repeat() -> None:
        number = 0
        while not over.is_set():
            number += 1
            begin = time.monotonic()
            try:
                step(number)
            except (grpc.RpcError, sqlite3.Error) as error:
                failed.append(repr(error))
            took.append((time.monotonic() - begin) * 1000)
            over.wait(0.005)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def revoke(running: Running, sessions: int) -> Figures:
    """Revoke a gateway of so many sessions while others read, write and take the write lock."""
    figures, store = Figures(sessions), store_of(running.installation)
    token = running.admin_token()
    add_sessions(store, GATEWAY, "admin", sessions)
    database = sqlite3.connect(store, timeout=DEADLINE, check_same_thread=False)
    with running.admin.channel(running.address) as channel, database:
        users, tokens, metadata = UserServiceStub(channel), TokenServiceStub(channel), bearer(token)

        def read(_number: int) -> None:
            request = users_pb.ListUsersRequest(page_size=1)
            users.ListUsers(request, metadata=metadata, timeout=DEADLINE)

        def write(number: int) -> None:
            request = users_pb.CreateUserRequest(user_id=f"user-{number}")
            users.CreateUser(request, metadata=metadata, timeout=DEADLINE)

        def lock(_number: int) -> None:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")

        with (
            _repeating(read, figures.read_ms, figures.failures),
            _repeating(write, figures.write_ms, figures.failures),
            _repeating(lock, figures.lock_ms, figures.failures),
        ):
            begin = time.monotonic()
            tokens.RevokeClient(
                tokens_pb.RevokeClientRequest(client_id=GATEWAY), metadata=metadata, timeout=600
            )
            figures.answered_ms = (time.monotonic() - begin) * 1000
            while count_sessions(store, GATEWAY):
                time.sleep(0.02)
            figures.deleted_ms = (time.monotonic() - begin) * 1000
    database.close()
    return figures


def _p99(took: list[float]) -> float:
    return sorted(took)[int(len(took) * 0.99)]


def main(
    *,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions of the gateway.")] = 200_000,
) -> None:
    """Revoke a client that has many sessions. The last line is JSON.

    Exits with 1 if a call of others failed.
    """
    with tempfile.TemporaryDirectory(prefix="revoke-") as folder:
        installation = Installation(Path(folder))
        secret = installation.bootstrap()
        server = installation.start()
        try:
            figures = revoke(Running(installation, server, secret), sessions)
        finally:
            server.stop()
    table = Table("figure", "", "meaning", title=f"RevokeClient of {sessions:,} sessions")
    table.columns[1].justify = "right"
    for name, value in figures.summary().items():
        table.add_row(name, f"{value:,.0f}", _MEANINGS[name])
    Console(highlight=False).print(table)
    print(json.dumps(figures.summary() | {"failures": asdict(figures)["failures"][:5]}))
    if figures.failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
