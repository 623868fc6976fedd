"""A certified OpenID provider that we did not write, in its own process: npm's ``oidc-provider``.

Unlike our own issuer for tests, it is an independent implementation of the standards.
"""

from __future__ import annotations

import json
import secrets
import selectors
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx

from secure_tls.authority import Authority, Issued

AUDIENCE = "users-api"
DEADLINE = 30.0
"""Seconds that anything here may take on a busy machine."""

_FOLDER = Path(__file__).parents[1] / "interop" / "oidc"


def missing() -> str | None:
    """Why the provider cannot run here, or None where it can."""
    if shutil.which("node") is None:
        return "node is not installed"
    if not (_FOLDER / "node_modules" / "oidc-provider").is_dir():
        return "oidc-provider is not installed: npm ci --prefix tests/interop/oidc"
    return None


class OidcProvider:
    """One provider and its clients ``service``, ``bound`` and ``api``, which introspects.

    Its resources are ``urn:jwt`` (RS256), ``urn:es`` (ES256) and ``urn:opaque``; their scopes are
    ``read`` and ``write``, their audience is ``audience``. A token lives five minutes and says
    ``groups``: ``["team-a-admins"]``. Tokens of ``bound`` are bound to its certificate (RFC 8705).
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.issuer = f"https://localhost:{port}"
        self.audience = AUDIENCE
        self.ca_file = folder / "ca.pem"
        self._folder = folder
        self._log = folder / "provider.log"
        self._secrets = {name: secrets.token_urlsafe(24) for name in ("service", "bound", "api")}
        self.introspection_client_id = "api"
        self.introspection_secret = self._secrets["api"]
        self._settings = {
            "port": port,
            "certificate": str(folder / "provider.pem"),
            "private_key": str(folder / "provider.key"),
            "client_ca": str(self.ca_file),
            "keys": str(folder / "keys.json"),
            "audience": self.audience,
            "secrets": self._secrets,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self, certificate: Issued | None = None) -> httpx.Client:
        """Make an HTTP client of the provider, with a certificate or without one. Close it."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if certificate is not None:
            path = self._folder / f"client-{certificate.certificate.serial_number:x}.pem"
            _write(path, certificate.certificate_pem + certificate.private_key_pem)
            context.load_cert_chain(path)
        # A proxy that the environment names has no way to this machine.
        return httpx.Client(base_url=self.issuer, verify=context, trust_env=False, timeout=DEADLINE)

    def token(
        self,
        resource: str,
        *,
        client: str = "service",
        scope: str = "read",
        certificate: Issued | None = None,
    ) -> str:
        """Get an access token by client credentials (RFC 6749, section 4.4).

        Raises ``RuntimeError`` with the provider's answer where it refuses, as all of these do.
        """
        form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        token: str = self._post("/token", client, form, certificate).json()["access_token"]
        return token

    def introspect(self, token: str) -> dict[str, Any]:
        """Ask what an opaque token is (RFC 7662); of a JWT the provider does not tell."""
        answer: dict[str, Any] = self._post(
            "/token/introspection", self.introspection_client_id, {"token": token}
        ).json()
        return answer

    def revoke(self, token: str, *, client: str = "service") -> None:
        """Revoke an opaque token of a client (RFC 7009); a JWT the provider cannot revoke."""
        self._post("/token/revocation", client, {"token": token})

    def rotate(self, *, keep_old: bool = True) -> list[str]:
        """Sign with new keys. Return the key IDs that are published now: RS256, ES256, old ones."""
        published: list[str] = self._tell({"rotate": {"keep_old": keep_old}})["rotated"]
        return published

    def retire(self) -> list[str]:
        """Publish only the keys that sign, and return their IDs: RS256, ES256."""
        published: list[str] = self._tell({"retire": True})["retired"]
        return published

    def kill(self) -> None:
        """Send SIGKILL and wait: connections are refused until ``restart``."""
        if self._process is not None:
            with self._process:
                self._process.kill()
            self._process = None

    def restart(self) -> None:
        """Start it on its port and with its keys. Opaque tokens are forgotten."""
        self.kill()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["node", "provider.mjs"],
                cwd=_FOLDER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
            )
        self._tell(self._settings)

    def _tell(self, message: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None, "The provider was killed: restart it first."
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # the log below says why it ended
            process.stdin.write(json.dumps(message).encode() + b"\n")
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            ready = selector.select(DEADLINE)
        # The provider writes a line at once, and this pipe is not buffered.
        line = process.stdout.readline() if ready else b""
        if not line:
            log = self._log.read_text(encoding="utf-8", errors="replace")
            what = "ended" if ready else f"did not answer in {DEADLINE} s"
            raise RuntimeError(f"The provider {what}:\n{log}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _post(
        self, path: str, client: str, form: dict[str, str], certificate: Issued | None = None
    ) -> httpx.Response:
        with self.connect(certificate) as connection:
            response = connection.post(path, data=form, auth=(client, self._secrets[client]))
        if not response.is_success:
            raise RuntimeError(f"{path} of the provider answers {response.text}")
        return response


@contextmanager
def running_oidc_provider(folder: Path, authority: Authority) -> Iterator[OidcProvider]:
    """Run a provider in a folder of its own. ``authority`` vouches for it and for its clients."""
    server = authority.issue_server("oidc-provider", ["localhost"], [ip_address("127.0.0.1")])
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "ca.pem", authority.certificate_pem)
    _write(folder / "provider.pem", server.certificate_pem)
    _write(folder / "provider.key", server.private_key_pem)
    with socket.socket() as held:
        # Bound and not listening: no other process gets the port while the provider is down, and
        # connections are refused.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        provider = OidcProvider(folder, held.getsockname()[1])
        try:
            provider.restart()
            yield provider
        finally:
            provider.kill()


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
