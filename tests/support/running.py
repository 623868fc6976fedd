"""The real server: its own process, started by its command line, in a folder of its own.

``support.house`` runs a server inside the test; this one can be killed, and is what users run.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from secure_api.tokens.v1 import token_service_pb2
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_server.cli.bootstrap import bootstrap
from secure_tls.folder import CertificateFolder, Order

DEADLINE = 60.0
"""Seconds that anything here may take on a busy machine."""

_POLL = 0.005
_SETTINGS = """\
[server]
listen = "127.0.0.1:0"
grace = 5

[log]
format = "json"
"""


@dataclass(frozen=True)
class ClientFiles:
    """The PEM files of one client, and the authority that it trusts."""

    certificate: Path
    private_key: Path
    ca: Path

    def channel(self, address: str) -> grpc.Channel:
        """Connect; connections are this channel's alone. The caller closes it."""
        credentials = grpc.ssl_channel_credentials(
            self.ca.read_bytes(), self.private_key.read_bytes(), self.certificate.read_bytes()
        )
        return grpc.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)])


class Installation:
    """A folder with certificates, a configuration and a store: what ``secure-server`` needs."""

    def __init__(
        self,
        root: Path,
        *,
        settings: str = "",
        environment: Mapping[str, str] | None = None,
        before: str = "",
    ) -> None:
        """``settings`` are more TOML tables; ``environment`` holds ``SECURE_SERVER_…`` variables,
        for keys of ``[server]`` and ``[log]``, which the file has already. ``before`` is what a
        shell does before it becomes ``secure-server serve``: ``ulimit -n 300``.
        """
        self._before = before
        self.root = root
        self.config = root / "secure-server.toml"
        self.config.write_text(_SETTINGS + settings, encoding="utf-8")
        self._certificates = root / "certs"
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SECURE_SERVER_", "SECURE_CLIENT_"))
        } | dict(environment or {})
        self._is_changed = bool(environment)
        self._starts = 0
        CertificateFolder(self._certificates).generate(
            [Order.server("server", ["localhost", "127.0.0.1"], stem="server")]
        )

    def client(self, name: str = "admin") -> ClientFiles:
        """Return the files of a client, made on first use."""
        CertificateFolder(self._certificates).generate([Order.client(name)])
        stem = self._certificates / "clients" / name
        return ClientFiles(
            stem.with_suffix(".pem"), stem.with_suffix(".key"), self._certificates / "ca.pem"
        )

    def renew(self, name: str) -> None:
        """Give a server or client a new key and certificate in the place of the old ones."""
        CertificateFolder(self._certificates).renew([name])

    def bootstrap(self, user: str = "admin") -> str:
        """Make the first administrator and return the secret of its one log-in."""
        secret = self.root / "bootstrap-secret"
        if self._is_changed:
            self.run("bootstrap", "--user", user, "--secret-file", str(secret))
        else:
            # The command itself, without a process of its own: that costs a second, many times.
            with contextlib.redirect_stderr(io.StringIO()):
                bootstrap(self.config, user, secret)
        return secret.read_text(encoding="utf-8").strip()

    def run(self, *command: str) -> str:
        """Run another command of ``secure-server`` on this installation; return what it prints."""
        script, name, *configured = self._command(command[0])
        done = subprocess.run(
            [script, name, *command[1:], *configured],
            cwd=self.root,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"secure-server {' '.join(command)} failed:\n{done.stderr}")
        return done.stdout

    def spawn(self) -> ServerProcess:
        """Start ``secure-server serve`` and do not wait for it."""
        self._starts += 1
        ready = self.root / f"ready-{self._starts}"
        log = self.root / f"server-{self._starts}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self._shell(), *self._command("serve"), "--ready-file", str(ready)],
                cwd=self.root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return ServerProcess(process, ready, log)

    def start(self) -> ServerProcess:
        """Start ``secure-server serve`` and wait until it serves."""
        server = self.spawn()
        try:
            server.wait_until_ready()
        except BaseException:
            server.kill()
            raise
        return server

    def _shell(self) -> list[str]:
        return ["sh", "-c", f'{self._before} && exec "$@"', "sh"] if self._before else []

    def _command(self, name: str) -> list[str]:
        # Beside the interpreter that runs this: the installation under test, whatever PATH says.
        script = Path(sys.executable).with_name("secure-server")
        return [str(script), name, "--config", str(self.config)]


@dataclass
class ServerProcess:
    """One ``secure-server serve``. ``address`` is HOST:PORT once it is ready."""

    process: subprocess.Popen[bytes]
    ready_file: Path
    log_file: Path
    address: str = ""

    @property
    def log(self) -> str:
        """Everything that it has written so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self, timeout: float = DEADLINE) -> None:
        """Wait for the ready file. Raises ``RuntimeError`` with the server's log."""
        end = time.monotonic() + timeout
        while not self.ready_file.exists():
            if self.process.poll() is not None:
                raise RuntimeError(f"The server ended ({self.process.returncode}):\n{self.log}")
            if time.monotonic() > end:
                raise RuntimeError(f"The server did not get ready in {timeout} s:\n{self.log}")
            time.sleep(_POLL)
        self.address = self.ready_file.read_text(encoding="utf-8").strip()

    def stop(self, timeout: float = DEADLINE) -> int:
        """Send SIGTERM, wait, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        self.process.kill()
        self.process.wait()


@dataclass
class Running:
    """A server that serves, and its administrator. ``address`` is HOST:PORT."""

    installation: Installation
    server: ServerProcess
    _secret: str = field(repr=False)
    _password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def admin(self) -> ClientFiles:
        """The files of the client ``admin``, which ``admin_token`` is bound to."""
        return self.installation.client("admin")

    def admin_token(self) -> str:
        """Log the administrator in and return a new access token, for ``admin``'s certificate."""
        new_password = "" if self._password else secrets.token_urlsafe(18)
        request = token_service_pb2.LoginRequest(
            user_name="admin", password=self._password or self._secret, new_password=new_password
        )
        with self.admin.channel(self.address) as channel:
            tokens = TokenServiceStub(channel).Login(request, timeout=DEADLINE, wait_for_ready=True)
        self._password = self._password or new_password
        token: str = tokens.access_token
        return token


@contextmanager
def running_server(
    root: Path,
    *,
    settings: str = "",
    environment: Mapping[str, str] | None = None,
    before: str = "",
) -> Iterator[Running]:
    """Install, bootstrap and start a server in an empty folder; end it by SIGTERM.

    Whatever fails inside, the server's log goes to standard error.
    """
    installation = Installation(root, settings=settings, environment=environment, before=before)
    secret = installation.bootstrap()
    server = installation.start()
    try:
        yield Running(installation, server, secret)
    except BaseException:
        sys.stderr.write(f"--- {server.log_file}\n{server.log}---\n")
        raise
    finally:
        server.stop()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the call metadata that carry a token."""
    return (("authorization", f"Bearer {token}"),)
