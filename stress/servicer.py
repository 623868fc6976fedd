"""A guarded server whose servicer misbehaves as grpcio's health service does.

Run as ``python -m stress.servicer``. Its callbacks wait for a lock that is held while a message is
sent, and sending waits for the serving thread: a deadlock where that thread runs the callbacks.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

import secure_server

SERVICE = "stress.Misbehaving"
GRACE = 5.0

_END = (signal.SIGTERM, signal.SIGINT)


class Misbehaving:
    """``Watch`` sends by itself, ``WatchInTurn`` yields; ``Check`` answers at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def check(self, request: bytes, _context: Any) -> bytes:
        return request

    def watch(self, request: bytes, context: Any, send: Callable[[Any], None]) -> None:
        with self._lock:
            send(request)
            context.add_callback(self._close)

    watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def watch_in_turn(self, request: bytes, context: Any) -> Iterator[bytes]:
        over = threading.Event()
        context.add_callback(self._close)
        context.add_callback(over.set)
        with self._lock:
            yield request
        over.wait()

    def _close(self) -> None:
        with self._lock:
            pass

    def add_to(self, server: grpc.Server) -> None:
        methods: dict[str, Any] = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
            "WatchInTurn": grpc.unary_stream_rpc_method_handler(self.watch_in_turn),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))


def main(config: str, ready_file: str) -> None:
    """Serve until SIGTERM; write the port to a file."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _END)
    guard = secure_server.Guard.from_config(config)
    server = grpc.server(
        guard.thread_pool(), interceptors=[guard.interceptor()], options=guard.options()
    )
    Misbehaving().add_to(server)
    port = server.add_secure_port("127.0.0.1:0", guard.server_credentials())
    server.start()
    draft = Path(ready_file + ".draft")
    draft.write_text(f"127.0.0.1:{port}\n", encoding="utf-8")
    draft.replace(ready_file)
    signal.sigwait(_END)
    server.stop(GRACE).wait(GRACE + 1)
    guard.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
