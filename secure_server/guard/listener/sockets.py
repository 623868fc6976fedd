"""Listening sockets of this process, which gRPC does not hand out: found, and closed alone."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")


def listening_sockets() -> dict[int, int]:
    """Return the listening TCP sockets: descriptors by inode. Empty where there is no /proc."""
    found: dict[int, int] = {}
    try:
        descriptors = [int(entry.name) for entry in _DESCRIPTORS.iterdir()]
    except OSError:
        return found
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
            if stat.S_ISSOCK(status.st_mode) and _is_listening(descriptor):
                found[status.st_ino] = descriptor
        except OSError:
            continue  # closed meanwhile
    return found


def stop_listening(inodes: frozenset[int]) -> bool:
    """Make these sockets accept no new connection; open connections stay.

    False where they cannot be found: then the whole server must be stopped.
    """
    found = listening_sockets()
    for inode in inodes:
        if inode not in found:
            return False
        # A copy: gRPC keeps its descriptor, and sees that the socket was shut down.
        with socket.socket(fileno=os.dup(found[inode])) as copy:
            copy.shutdown(socket.SHUT_RDWR)
    return bool(inodes)


def is_free(address: str) -> bool:
    """Whether no socket listens on a ``HOST:PORT``: gRPC shares ports without a word."""
    host, _, port = address.rpartition(":")
    if int(port) == 0:
        return True
    try:
        candidates = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, place in candidates:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(place)
    except OSError:
        return False
    return True


def _is_listening(descriptor: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.family in {socket.AF_INET, socket.AF_INET6} and bool(
            copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
