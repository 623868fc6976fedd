"""File descriptors: how many this process may have open, and how many of them are connections.

Every connection uses one, before it has presented a certificate. If connections could use them all,
the HTTP page could not answer and the store could not open its files: so some are reserved.
"""

from __future__ import annotations

import resource

from secure_server import logs

CONNECTIONS = 10_000
"""The most connections of one server, where the limit of descriptors allows as many."""

RESERVE = 128
"""Descriptors reserved from gRPC's connections: for 32 connections to the store (two files each),
the HTTP page (``http.MOST_CONNECTIONS``), requests to issuers, reloaded files, and the twenty that
the process starts with."""

_FEWEST = 16  # where the limit is below the reserve: then the reserve is not kept

ENOUGH = RESERVE + 2 * CONNECTIONS
"""Descriptors for all connections of a server and of the one that it replaces."""


def limit() -> int:
    """Return how many descriptors this process may have open (the soft ``RLIMIT_NOFILE``)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Raise this process's soft limit to the hard one; log a warning where that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        logs.logger(__name__).warning(
            "the limit of file descriptors could not be raised: set the soft limit to the hard one "
            "before the start (`ulimit -n`)",
            descriptors=soft,
            reason=str(error),
        )


def log_limit() -> None:
    """Log the limit: as a warning, where it is too low for half of ``CONNECTIONS``."""
    connections = most_connections(servers=2)
    log = logs.logger(__name__).bind(descriptors=limit(), connections=connections)
    if connections < CONNECTIONS / 2:
        advice = (
            "the limit of file descriptors is low, and so is the number of connections: set "
            f"LimitNOFILE={ENOUGH} in the systemd unit, or `ulimit -Hn {ENOUGH}` before the start"
        )
        log.warning(advice)
    else:
        log.info("file descriptors")


def most_connections(*, servers: int) -> int:
    """Return how many connections each of ``servers`` may hold, so that the reserve stays free."""
    return max(_FEWEST, min(CONNECTIONS, (limit() - RESERVE) // servers))
