"""The small HTTP side, in the clear: health, metrics and the key set. It takes no input."""

from __future__ import annotations

import errno
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cheroot.connections import ConnectionManager
from cheroot.wsgi import Server

from secure_server.logs import library_line

MOST_CONNECTIONS = 24
"""Open connections; for one more, the one is closed that has been silent for longest."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE = 0.2  # seconds, where nothing can be accepted

Page = Callable[[], tuple[str, str, bytes]]
"""Returns HTTP status, content type and body."""


def json_page(body: object, status: str = "200 OK") -> tuple[str, str, bytes]:
    """Return a page of JSON."""
    return status, "application/json", json.dumps(body).encode() + b"\n"


class _Connections(ConnectionManager):
    """Connections that cannot take all descriptors, nor all of a core when there are none."""

    _selector: Any

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._stopping = threading.Event()
        self._ready = self._selector.select
        self._selector.select = self._still_open

    def stop(self) -> None:
        self._stopping.set()
        super().stop()

    def _from_server_socket(self, server_socket: Any) -> Any:
        try:
            connection = super()._from_server_socket(server_socket)  # type: ignore[misc]
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            library_line("cheroot", f"cannot accept a connection: {error.strerror}")
            self._make_room(1)
            # A connection that waits makes the socket readable: without a pause the selector's
            # thread would try again for ever.
            self._stopping.wait(_PAUSE)
            return None
        self._make_room(MOST_CONNECTIONS)
        return connection

    def _still_open(self, timeout: float | None = None) -> Iterator[tuple[int, Any]]:
        """What is ready, but for connections that were closed for earlier ones of the same look."""
        for descriptor, connection in list(self._ready(timeout)):
            if (descriptor, connection) in self._selector.connections:
                yield descriptor, connection

    def _make_room(self, most: int) -> None:
        """Close the connection that has been silent for longest, where there are ``most``."""
        silent = [one for one in self._selector.connections if one[1] is not self.server]
        if len(silent) >= most:
            descriptor, connection = min(silent, key=lambda one: one[1].last_used)
            self._selector.unregister(descriptor)
            connection.close()


class _Server(Server):
    _connections: Any

    def prepare(self) -> None:
        super().prepare()
        self._connections.close()
        self._connections = _Connections(self)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: FBT001, FBT002
        """Log what cheroot says, with bounds on how often."""
        wanted = traceback or level >= logging.ERROR
        library_line("cheroot", msg, level, **({"exc_info": sys.exception()} if wanted else {}))

    def process_conn(self, conn: Any) -> None:
        """Give a new connection a thread once it has said something: silent ones would hold all."""
        if conn.last_used is None:
            self.put_conn(conn)
        else:
            super().process_conn(conn)


class HTTPServer:
    """Serves a few pages by GET and HEAD, on a thread of its own."""

    def __init__(self, listen: str, pages: Mapping[str, Page]) -> None:
        """Bind at once. Raises ``OSError`` where the address is taken or not ours."""
        self._pages = pages
        host, _, port = listen.rpartition(":")
        self._server = _Server(
            (host.strip("[]"), int(port)), self._respond, numthreads=2, max=4, request_queue_size=16
        )
        self._server.max_request_header_size = 16 * 1024
        self._server.max_request_body_size = 1
        self._server.timeout = 5
        self._server.prepare()
        self._thread = threading.Thread(target=self._server.serve, name="http", daemon=True)

    @property
    def address(self) -> str:
        """The bound ``HOST:PORT``."""
        host, port = self._server.bind_addr[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and wait for the thread."""
        self._server.stop()
        if self._thread.is_alive():
            self._thread.join()

    def _respond(
        self, environ: Mapping[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        page = self._pages.get(environ["PATH_INFO"])
        if page is None:
            status, kind, body = "404 Not Found", "text/plain", b"not found\n"
        elif environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            status, kind, body = "405 Method Not Allowed", "text/plain", b"GET only\n"
        else:
            status, kind, body = page()
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
