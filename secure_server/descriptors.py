"""File descriptors: how many this process may have open, and how many of them are connections.

Every connection is one, whether it has shown a certificate or not. Where callers hold them all, the
page of health and metrics cannot answer and the store cannot open its files: a part is theirs.
"""

from __future__ import annotations

import resource

from secure_server import logs

CONNECTIONS = 10_000
"""Connections of one server at the most, where the limit of descriptors allows as many."""

RESERVE = 128
"""Descriptors that no connection of gRPC's gets: for 32 connections to the store (two files each),
the HTTP page (``http.MOST_CONNECTIONS``), issuers that are asked, files that are read anew, and the
twenty that the process begins with."""

_FEWEST = 16  # where the limit is below the reserve: then the reserve is not kept

ENOUGH = RESERVE + 2 * CONNECTIONS
"""Descriptors for all connections of a server and of the one that it replaces."""


def limit() -> int:
    """How many descriptors this process may have open now (the soft ``RLIMIT_NOFILE``)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Raise the soft limit to the hard one, for this process; log where that is not allowed."""
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
    """How many connections each of so many servers may hold, so that the reserve stays free."""
    return max(_FEWEST, min(CONNECTIONS, (limit() - RESERVE) // servers))
