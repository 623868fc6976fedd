"""An OpenID Connect provider, for the length of a test: discovery, keys, introspection."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, unquote

from secure_server.testing.issuer import Issuer
from secure_tls.authority import Authority

HOST = "127.0.0.1"

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"
INTROSPECTION = "/introspect"

Answer = tuple[int, dict[str, str], bytes]
"""HTTP status, headers and body."""


class Provider:
    """A running provider, for its tests.

    ``issuer`` signs its tokens and is named by its URL; ``ca_file`` is the PEM file of the
    authority of its certificate. ``requests`` holds the requested paths, in order, and
    ``connections`` counts the connections opened for them. A test may put functions into
    ``answers``, by path, that answer slowly, wrongly or not at all; ``fail`` does so for all paths.
    """

    client_id = "guard"
    client_secret = "introspection-secret"  # noqa: S105 - for tests only

    def __init__(self, url: str, issuer: Issuer, ca_file: Path) -> None:
        self.url = url
        self.issuer = issuer
        self.ca_file = ca_file
        self.introspection_endpoint = url + INTROSPECTION
        self.requests: list[str] = []
        self.connections = 0
        self.answers: dict[str, Callable[[], Answer]] = {}
        self.delay = 0.0
        """Seconds before each answer."""
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._active: dict[str, dict[str, Any]] = {}

    def fail(self, status: int = 503) -> None:
        """Answer everything with this status until ``recover``."""
        for path in (DISCOVERY, KEYS, INTROSPECTION):
            self.answers[path] = lambda: (status, {}, b"")

    def recover(self) -> None:
        """Answer normally again."""
        self.answers.clear()
        self.delay = 0.0

    def opaque(self, token: str, **members: Any) -> str:
        """Make an opaque token active; ``members`` are added to its introspection (RFC 7662)."""
        now = int(self.issuer.clock())
        own = {
            "active": True,
            "iss": self.issuer.name,
            "aud": self.issuer.audience,
            "sub": "alice",
            "client_id": "shop",
            "exp": now + 3600,
        }
        self._active[token] = own | members
        return token

    def revoke(self, token: str) -> None:
        """Make an opaque token inactive."""
        del self._active[token]

    def renew(self, authority: Authority) -> None:
        """Use a certificate of this authority for new connections; ``ca_file`` and open connections
        stay unchanged.
        """
        leaf = authority.issue_server("provider", ["localhost"], [])
        with TemporaryDirectory(prefix="secure-server-testing-") as folder:
            pair = Path(folder) / "pair.pem"
            pair.touch(mode=0o600)
            pair.write_bytes(leaf.certificate_pem + leaf.private_key_pem)
            self.tls.load_cert_chain(pair)

    def answer(self, path: str, authorization: str, body: str) -> Answer:
        """Answer one request."""
        self.requests.append(path)
        time.sleep(self.delay)
        if path in self.answers:
            return self.answers[path]()
        if path == DISCOVERY:
            return page({"issuer": self.issuer.name, "jwks_uri": self.url + KEYS})
        if path == KEYS:
            return 200, {}, self.issuer.jwks().encode()
        if path == INTROSPECTION:
            return self._introspect(authorization, body)
        return 404, {}, b""

    def _introspect(self, authorization: str, body: str) -> Answer:
        scheme, _, value = authorization.partition(" ")
        user, _, secret = base64.b64decode(value).decode().partition(":")
        if (scheme, unquote(user), unquote(secret)) != (
            "Basic",
            self.client_id,
            self.client_secret,
        ):
            return 401, {}, b""
        token = parse_qs(body).get("token", [""])[0]
        return page(self._active.get(token, {"active": False}))


def page(document: object) -> Answer:
    """Return a page of JSON."""
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


@contextmanager
def running_provider(
    *, authority: Authority | None = None, issuer: Issuer | None = None
) -> Iterator[Provider]:
    """Run a provider on a free port of loopback; its certificate is ``authority``'s.

    ``issuer`` is renamed to the URL. The address is not public: an authenticator needs
    ``allow_private_addresses``, and ``ca``.
    """
    authority = authority or Authority.create("example.org")
    issuer = issuer or Issuer()
    with TemporaryDirectory(prefix="secure-server-testing-") as folder:
        ca_file = Path(folder) / "ca.pem"
        ca_file.write_bytes(authority.certificate_pem)
        server = _Server((HOST, 0), _Handler)
        issuer.name = f"https://localhost:{server.server_address[1]}"
        server.provider = Provider(issuer.name, issuer, ca_file)
        server.provider.renew(authority)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.provider
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    provider: Provider

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        self.provider.connections += 1
        # The connection's own thread does the handshake.
        secure = self.provider.tls.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
        secure.settimeout(30)
        return secure, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: tests hang up on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: with two, the second would wait for an acknowledgement
    server: _Server

    def do_GET(self) -> None:
        self._respond(self.server.provider, "")

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        self._respond(self.server.provider, self.rfile.read(size).decode())

    def _respond(self, provider: Provider, body: str) -> None:
        status, headers, content = provider.answer(
            self.path, self.headers.get("Authorization", ""), body
        )
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""
