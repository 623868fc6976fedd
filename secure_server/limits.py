"""What one peer may cost: gRPC's channel arguments, all of them here.

gRPC ignores an argument that it does not know without a word, so each is tested by its effect.
"""

from __future__ import annotations

from dataclasses import dataclass

from secure_server import descriptors

_SECOND = 1000

MAX_METADATA_BYTES = 16 * 1024
"""Names, values and 32 bytes an entry (RFC 9113, section 10.5.1). gRPC has a limit too, but does
not apply it before the client has acknowledged the server's settings."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds in which a connection must have finished TLS and the HTTP/2 preface."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a guard lets through at once. The defaults are those of ``[server]``."""

    door_threads: int = 128
    """Decisions and unary calls at once."""
    stream_threads: int = 256
    """Open streams at once; one more is RESOURCE_EXHAUSTED."""
    max_message_bytes: int = 4 * 1024 * 1024
    """A larger message is RESOURCE_EXHAUSTED, before and after decompression."""
    retire: float = 600.0
    """Seconds that connections under a replaced certificate get until they are closed."""
    message_timeout: float = 10.0
    """Seconds in which the one message of a unary or server-streaming call must have come."""


def channel_arguments(limits: Limits, *, servers: int = 1) -> list[tuple[str, int]]:
    """Return the options for ``grpc.server``, of ``servers`` that this process runs at once."""
    return [
        # For the server that comes after: `listener.sockets.check_free` keeps others off the port.
        ("grpc.so_reuseport", 1),
        ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_TIMEOUT * _SECOND)),
        # Sockets that are still in their handshake count too, hence the short time-out above. One
        # more is closed as soon as it is accepted: cheaper than to run out of descriptors, which
        # takes them from the store and the HTTP page as well.
        (
            "grpc.max_allowed_incoming_connections",
            descriptors.most_connections(servers=servers),
        ),
        # Between the soft and the hard limit gRPC refuses at random: there is no between.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_concurrent_streams", 1000),
        # A connection outlives the certificate that it was opened under, and moves to the next
        # server before that one is stopped.
        ("grpc.max_connection_age_ms", int(limits.retire / 2 * _SECOND)),
        ("grpc.max_connection_age_grace_ms", 3600 * _SECOND),
        ("grpc.keepalive_time_ms", 60 * _SECOND),
        ("grpc.keepalive_timeout_ms", 20 * _SECOND),
        ("grpc.http2.min_ping_interval_without_data_ms", 10 * _SECOND),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
