#!/usr/bin/env python3
"""A demonstration in a minute: certificates, the server, calls of all four kinds, refusals.

It runs in a temporary folder, with the installed command lines.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from rich import box
from rich.console import Console
from rich.table import Table

from secure_api.tokens.v1 import token_service_pb2 as tokens
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_client import FileTokenSource, connect
from secure_server.tokens.issuer import Issuer
from secure_server.tokens.key_file import KeyFile
from secure_tls import parse_peer

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PATIENCE = 20.0  # seconds to wait for any effect

CONFIG = """
[server]
listen = "127.0.0.1:0"
[tls]
crl = "certs/crl.pem"
[[workloads]]
spiffe_id = "spiffe://example.org/client/demo"
scopes = ["introspect"]
"""


class DemoFailedError(Exception):
    """A step had another result than expected."""


@dataclass
class Row:
    """One call of the summary."""

    kind: str
    what: str
    outcome: str
    as_expected: bool


class Demo:
    """The folder, the server in it, and the results."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self.console = console
        self.rows: list[Row] = []
        self.target = ""
        self.environment = os.environ | {"XDG_CONFIG_HOME": str(folder / "config")}

    def title(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]")

    def run(
        self,
        *command: str,
        ok: bool = True,
        cwd: Path | None = None,
        typed: str = "",
        secret: bool = False,
    ) -> str:
        """Run one of the command lines and show it; return what it printed.

        ``ok`` says whether it must succeed; ``typed`` goes to its standard input.
        """
        self.say(*command)
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=cwd or self.folder,
            env=self.environment,
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 3,
            check=False,
        )
        text = done.stdout + done.stderr
        shown = "(a token)" if secret and done.returncode == 0 else text.rstrip()
        if shown:
            self.console.print(shown, highlight=False, markup=False, soft_wrap=True)
        if (done.returncode == 0) is not ok:
            raise DemoFailedError(f"`{' '.join(command)}` ended with status {done.returncode}.")
        return done.stdout if ok else text

    def say(self, *command: str) -> None:
        self.console.print(
            f"$ {' '.join(command)}", style="cyan", highlight=False, markup=False, soft_wrap=True
        )

    def client(
        self, *arguments: str, ok: bool = True, typed: str = "", secret: bool = False
    ) -> str:
        return self.run("secure-client", *arguments, ok=ok, typed=typed, secret=secret)

    def note(self, kind: str, what: str, outcome: str, *, as_expected: bool = True) -> None:
        self.rows.append(Row(kind, what, outcome, as_expected))

    def refused(self, what: str, expected: grpc.StatusCode, call: Callable[[], object]) -> None:
        """Make a call that must be refused with this status."""
        outcome = "served"
        try:
            call()
        except grpc.RpcError as error:
            outcome = error.code().name
        self.console.print(f"{what}: {outcome}", highlight=False)
        self.note("unary", what, outcome, as_expected=outcome == expected.name)

    @contextmanager
    def server(self) -> Iterator[None]:
        """Run the real server until the block is left; then it must stop gracefully."""
        ready = self.folder / "ready"
        log = self.folder / "server.log"
        self.say("secure-server", "serve", "--ready-file", ready.name, "&")
        with log.open("w") as stream:
            process = subprocess.Popen(
                [BIN / "secure-server", "serve", "--ready-file", str(ready)],
                cwd=self.folder,
                env=self.environment,
                stdout=stream,
                stderr=stream,
            )
            try:
                deadline = time.monotonic() + PATIENCE
                while not ready.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise DemoFailedError(f"the server did not start:\n{log.read_text()}")
                    time.sleep(0.05)
                self.target = ready.read_text().strip()
                self.console.print(f"serving on {self.target}", highlight=False)
                yield
                process.send_signal(signal.SIGTERM)
                status = process.wait(PATIENCE * 2)
                if status:
                    raise DemoFailedError(f"the server ended with status {status}.")
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    @contextmanager
    def watching(self, lines: int) -> Iterator[list[str]]:
        """Run ``users watch`` beside the block until it has printed so many lines."""
        command = ["secure-client", "users", "watch", "--json"]
        self.say(*command, "&")
        process = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        seen: list[str] = []
        try:
            assert process.stdout is not None
            seen.append(process.stdout.readline())  # the stream is open
            yield seen
            while len(seen) < lines and (line := process.stdout.readline()):
                seen.append(line)
        finally:
            process.terminate()  # a job in the background of a shell ignores SIGINT
            process.communicate(timeout=PATIENCE)


def play(demo: Demo) -> None:
    """All steps, in a new user's order."""
    folder = demo.folder
    demo.title("1. Certificates: an authority, a server, two clients")
    demo.run("python", str(ROOT / "tools" / "gen_certs.py"))

    demo.title("2. The server, and its first administrator")
    (folder / "secure-server.toml").write_text(CONFIG)
    demo.run("secure-server", "bootstrap", "--secret-file", "state/bootstrap-secret")
    with demo.server():
        demo.title("3. Authenticated calls")
        serve(demo)
        demo.title("4. Refusals")
        refuse(demo)
        demo.title("5. Renewed and revoked while calls run")
        rotate(demo)
    demo.title("6. Summary")


def serve(demo: Demo) -> None:
    """Calls of all four kinds that succeed."""
    folder = demo.folder
    (folder / "password").write_text(secrets.token_urlsafe(24) + "\n")
    demo.client(
        *("login", "admin", "--target", demo.target),
        *("--password-file", "state/bootstrap-secret", "--new-password-file", "password"),
    )
    demo.note("unary", "Login with the bootstrap secret", "served")
    demo.client("whoami")
    demo.note("unary", "WhoAmI", "served")
    rows = "user_id,email\nbob,bob@example.org\ncarol,carol@example.org\n"
    (folder / "users.csv").write_text(rows)
    with demo.watching(lines=4) as changes:
        demo.client("users", "create", "alice", "--email", "alice@example.org")
        demo.note("unary", "CreateUser alice", "served")
        demo.client("users", "import", "users.csv")
        demo.note("client streaming", "ImportUsers, 2 rows", "served")
    if not all(name in "".join(changes) for name in ("alice", "bob", "carol")):
        raise DemoFailedError(f"the watch saw something else: {changes}")
    for change in map(json.loads, changes[1:]):
        demo.console.print(f"watched: {change['change']} {change['user']['name']}", highlight=False)
    demo.note("server streaming", f"WatchUsers, {len(changes) - 1} changes", "served")
    demo.client("users", "list")
    demo.note("unary", "ListUsers", "served")
    workload = (
        *("--profile", "workload", "--target", demo.target),
        *("--certificate", "certs/clients/demo.pem", "--private-key", "certs/clients/demo.key"),
    )
    token = demo.client("tokens", "issue", *workload, secret=True).strip()
    demo.note("unary", "IssueToken by certificate alone", "served")
    answer = demo.client("tokens", "introspect", "-", "--json", typed=f"{token}\nno-token\n")
    answers = [json.loads(line)["active"] for line in answer.splitlines()]
    if answers != [True, False]:
        raise DemoFailedError("the workload's token is not active.")
    demo.note("bidirectional", "Introspect, 2 tokens", "served")


def refuse(demo: Demo) -> None:
    """Calls that the server must refuse."""
    folder = demo.folder
    certs = folder / "certs"
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    stranger = ("--profile", "stranger", "--target", demo.target)
    text = demo.run(
        *("secure-client", "keys", *stranger, "--ca", str(certs / "ca.pem")),
        ok=False,
        cwd=elsewhere,
    )
    demo.note("unary", "no client certificate", "refused in the handshake", as_expected=bool(text))
    demo.client("whoami", *stranger, ok=False)
    demo.refused("no token", grpc.StatusCode.UNAUTHENTICATED, lambda: who_am_i(demo, "admin", None))
    (folder / "token").write_text(demo.client("token", secret=True))
    (folder / "token").chmod(0o600)
    demo.refused(
        "a token bound to another certificate",
        grpc.StatusCode.UNAUTHENTICATED,
        lambda: who_am_i(demo, "demo", "token"),
    )
    key_ring = KeyFile(folder / "state" / "signing-key.pem").open(time.time())
    peer = parse_peer((certs / "clients" / "admin.pem").read_bytes())
    issuer = Issuer(
        name="https://secure-grpc.example.org",
        audience="secure-grpc",
        lifetime=600,
        key_ring=lambda: key_ring,
        clock=lambda: time.time() - 3600,
    )
    expired = issuer.issue(
        "users/admin",
        client_id=peer.spiffe_id or "",
        thumbprint=peer.thumbprint,
        roles=["admin"],
    )
    (folder / "expired").write_text(expired.text)
    (folder / "expired").chmod(0o600)
    demo.refused(
        "an expired token",
        grpc.StatusCode.UNAUTHENTICATED,
        lambda: who_am_i(demo, "admin", "expired"),
    )

    (folder / "initial").write_text(secrets.token_urlsafe(24) + "\n")
    demo.client("users", "create", "dave", "--password-file", "initial")
    dave = ("--profile", "dave", "--target", demo.target)
    demo.client(
        *("login", "dave", *dave),
        *("--password-file", "initial", "--new-password-file", "password"),
    )
    text = demo.client("users", "list", *dave, ok=False)
    demo.note(
        "unary",
        "ListUsers without the role admin",
        "PERMISSION_DENIED",
        as_expected="[NOT_ALLOWED]" in text,
    )


def rotate(demo: Demo) -> None:
    """Renew the server's certificate and revoke a client while calls are running."""
    over = threading.Event()
    outcomes: list[str] = []

    def steadily() -> None:
        with health(demo, "admin") as check:
            while not over.is_set():
                outcomes.append(check())

    caller = threading.Thread(target=steadily)
    caller.start()
    try:
        before = shown_certificate(demo)
        demo.run("secure-certs", "renew", "server")
        wait_for("the renewed certificate", lambda: shown_certificate(demo) != before)
        with health(demo, "demo") as check:
            if check() != "served":
                raise DemoFailedError("the client demo is refused too early.")
            demo.run("secure-certs", "revoke", "demo")
            wait_for("the revocation", lambda: check() == "UNAUTHENTICATED")
    finally:
        over.set()
        caller.join()
    failed = [outcome for outcome in outcomes if outcome != "served"]
    demo.note(
        "unary",
        f"{len(outcomes)} calls while the server's certificate was renewed",
        failed[0] if failed else "served",
        as_expected=not failed,
    )
    demo.note("unary", "a revoked client, on its open connection", "UNAUTHENTICATED")


@contextmanager
def health(demo: Demo, client: str) -> Iterator[Callable[[], str]]:
    """One connection of a client; yields a function that calls over it and returns the result."""
    certs = demo.folder / "certs"
    with connect(
        demo.target,
        ca=certs / "ca.pem",
        certificate=certs / "clients" / f"{client}.pem",
        private_key=certs / "clients" / f"{client}.key",
    ) as channel:
        invoke = channel.unary_unary("/grpc.health.v1.Health/Check")

        def check() -> str:
            try:
                invoke(b"", timeout=PATIENCE)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "served"

        yield check


def shown_certificate(demo: Demo) -> str:
    """Return the certificate that the server presents to a new connection."""
    host, _, port = demo.target.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=PATIENCE)


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, ``PATIENCE`` seconds at most."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > PATIENCE:
            raise DemoFailedError(f"{what} did not hold within {PATIENCE:g} seconds.")
        time.sleep(0.1)


def who_am_i(demo: Demo, client: str, token_file: str | None) -> None:
    """Call WhoAmI over a client's certificate with the token in a file, or without one."""
    certs = demo.folder / "certs"
    with connect(
        demo.target,
        ca=certs / "ca.pem",
        certificate=certs / "clients" / f"{client}.pem",
        private_key=certs / "clients" / f"{client}.key",
        tokens=FileTokenSource(demo.folder / token_file) if token_file else None,
    ) as channel:
        TokenServiceStub(channel).WhoAmI(tokens.WhoAmIRequest())


def main() -> None:
    """Run the demonstration and print a summary; exit 1 after any unexpected result."""
    console = Console()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="secure-grpc-demo-") as folder:
        demo = Demo(Path(folder), console)
        try:
            play(demo)
        except DemoFailedError as error:
            console.print(f"The demo failed: {error}", style="red", highlight=False, markup=False)
            sys.exit(1)
    table = Table("kind", "call", "outcome", box=box.SIMPLE if console.is_terminal else None)
    for row in demo.rows:
        style = ("green" if row.outcome == "served" else "yellow") if row.as_expected else "red"
        table.add_row(row.kind, row.what, f"[{style}]{row.outcome}[/{style}]")
    console.print(table)
    kinds = {row.kind for row in demo.rows if row.outcome == "served"}
    served = sum(row.outcome == "served" for row in demo.rows)
    console.print(
        f"\n{served} calls of {len(kinds)} kinds served, {len(demo.rows) - served} refused, in "
        f"{time.monotonic() - began:.0f} seconds. Nothing is left behind. Next: make run",
        highlight=False,
        soft_wrap=True,
    )
    if len(kinds) != 4 or not all(row.as_expected for row in demo.rows):
        console.print("A step had an unexpected result.", style="red")
        sys.exit(1)


if __name__ == "__main__":
    main()
