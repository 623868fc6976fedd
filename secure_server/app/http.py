"""The small HTTP side, in the clear: health, metrics and the key set. It takes no input."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cheroot.connections import ConnectionManager
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.wsgi import Server

from secure_server.logs import library_line

MOST_CONNECTIONS = 24
"""Open connections; for one more, the one is closed that has had no answer for longest. Each has a
thread if it needs one, so that slow requests keep none from others."""

_REQUEST_TIME = 2.0
"""Seconds from the first byte of a request to the end of its head."""

_ANSWER_TIME = 10.0
"""Seconds from there until the answer is written."""

_LOOK_EVERY = 0.25  # seconds

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE = 0.2  # seconds, where nothing can be accepted

Page = Callable[[], tuple[str, str, bytes]]
"""Returns HTTP status, content type and body."""


def json_page(body: object, status: str = "200 OK") -> tuple[str, str, bytes]:
    """Return a page of JSON."""
    return status, "application/json", json.dumps(body).encode() + b"\n"


class _Request(HTTPRequest):
    conn: _Connection

    def parse_request(self) -> None:
        """Read the head. A request with a body is refused: no page takes one."""
        super().parse_request()
        length = self.inheaders.get(b"Content-Length", b"0")
        if self.ready and (self.chunked_read or length != b"0"):
            self.ready = False  # so that the connection is closed, and the body is not read
            self.simple_response("413 Request Entity Too Large", "no page takes a body\n")
        self.conn.head_has_come()


class _Connection(HTTPConnection):
    """A connection that ends within a bounded time, whatever its peer sends.

    A worker reads from it while the selector's thread may end it: ``lock`` is held where one of
    them closes it or hands it over.
    """

    RequestHandlerClass = _Request

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lock = threading.RLock()
        self.is_over = False
        self.is_answering = False
        self.waits_since = time.monotonic()
        """When it was opened, or answered last."""
        self.ends_at = math.inf
        self._has_worker = False
        self._is_closed = False

    def has_begun(self) -> None:
        """A request begins."""
        self.ends_at = time.monotonic() + _REQUEST_TIME

    def head_has_come(self) -> None:
        self.is_answering = True
        self.ends_at = time.monotonic() + _ANSWER_TIME

    def is_idle(self) -> None:
        """A request was answered, or none has been sent yet."""
        self.ends_at = math.inf
        self.waits_since = time.monotonic()
        self.is_answering = self._has_worker = False

    def communicate(self) -> bool:
        with self.lock:
            if self.is_over:
                return False
            self._has_worker = True
        return bool(super().communicate())  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """Close it; where a worker uses it, shut it down, so that the worker closes it."""
        with self.lock:
            if not self._has_worker:
                self.close()
            elif not self.is_over:
                self.is_over = True
                with contextlib.suppress(OSError):
                    self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self.lock:
            if not self._is_closed:
                self.is_over = self._is_closed = True
                super().close()


class _Connections(ConnectionManager):
    """Connections that cannot take all descriptors or threads, nor all of a core when there are
    none.
    """

    _selector: Any

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._open: list[_Connection] = []
        self._stopping = threading.Event()
        self._ready = self._selector.select
        self._selector.select = self._still_open

    def stop(self) -> None:
        self._stopping.set()
        super().stop()
        for connection in self._open:
            if not connection.is_answering:
                connection.end()

    def put(self, conn: _Connection) -> None:
        with conn.lock:
            if conn.is_over:
                conn.close()
                return
            conn.is_idle()
            super().put(conn)

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
        if connection is not None:
            self._make_room(MOST_CONNECTIONS)
            self._open.append(connection)
        return connection

    def _still_open(self, timeout: float | None = None) -> Iterator[tuple[int, Any]]:
        """What is ready, but for connections that were closed for earlier ones of the same look."""
        for descriptor, connection in list(self._ready(timeout)):
            if (descriptor, connection) in self._selector.connections:
                yield descriptor, connection

    def _expire(self, threshold: float) -> None:
        super()._expire(threshold)  # type: ignore[misc]
        now = time.monotonic()
        for connection in self._open:
            if connection.ends_at <= now:
                self._end(connection)
        self._open = [one for one in self._open if not one.is_over]

    def _make_room(self, most: int) -> None:
        """End the connection that has had no answer for longest, where there are ``most``."""
        self._open = [one for one in self._open if not one.is_over]
        if len(self._open) >= most:
            self._end(min(self._open, key=lambda one: (one.is_answering, one.waits_since)))

    def _end(self, connection: _Connection) -> None:
        with connection.lock:
            for descriptor, registered in list(self._selector.connections):
                if registered is connection:
                    self._selector.unregister(descriptor)
            connection.end()


class _Server(Server):
    ConnectionClass = _Connection
    expiration_interval = _LOOK_EVERY
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
            conn.has_begun()
            super().process_conn(conn)


class HTTPServer:
    """Serves a few pages by GET and HEAD, on a thread of its own."""

    def __init__(self, listen: str, pages: Mapping[str, Page]) -> None:
        """Bind at once. Raises ``OSError`` where the address is taken or not ours."""
        self._pages = pages
        host, _, port = listen.rpartition(":")
        self._server = _Server(
            (host.strip("[]"), int(port)),
            self._respond,
            numthreads=MOST_CONNECTIONS,
            max=MOST_CONNECTIONS,
            request_queue_size=16,
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
