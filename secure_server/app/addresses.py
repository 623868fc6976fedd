"""The addresses that a server listens on: free, and not the same one twice."""

from __future__ import annotations

from secure_server.config import Config
from secure_server.guard.listener.sockets import ListenError, check_free, overlap

SERVER = "[server] listen"
HTTP = "[http] listen"


def check_addresses(config: Config) -> None:
    """Raise ``ListenError`` for an address that a server could not listen on now."""
    check_free(config.server.listen, SERVER)
    if (http := config.http.listen) is None:
        return
    check_free(http, HTTP)
    if overlap(http, config.server.listen):
        raise ListenError(http, HTTP)
