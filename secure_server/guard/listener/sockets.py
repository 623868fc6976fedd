"""Listening sockets: whether an address is free for one, and those of this process, which gRPC does
not hand out, found and closed alone.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

_DESCRIPTORS = Path("/proc/self/fd")
_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound


class ListenError(Exception):
    """The address cannot be listened on; the message says what to do."""

    def __init__(self, address: str, key: str) -> None:
        """``key`` is the setting that names the address."""
        super().__init__(
            f"Cannot listen on {address}: the port is taken, or the address is not one of this "
            f"machine's. Choose another with {key}."
        )


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


def check_free(address: str, key: str) -> None:
    """Bind a ``HOST:PORT`` for a moment, because gRPC shares ports without a word.

    Port 0 is any that is free. Raises ``ListenError``, which names the ``key``.
    """
    try:
        for family, place in _candidates(address):
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(place)
    except (OSError, UnicodeError):  # the second for a host that is no name at all
        raise ListenError(address, key) from None


def overlap(one: str, other: str) -> bool:
    """Whether two ``HOST:PORT`` that are free could not both be listened on."""
    return any(
        family == other_family
        and place[1] == other_place[1] != 0
        and (place[0] == other_place[0] or not _ANY.isdisjoint({place[0], other_place[0]}))
        for family, place in _candidates(one)
        for other_family, other_place in _candidates(other)
    )


def _candidates(address: str) -> list[tuple[socket.AddressFamily, Any]]:
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return [(family, place) for family, _, _, _, place in found]


def _is_listening(descriptor: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.family in {socket.AF_INET, socket.AF_INET6} and bool(
            copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
