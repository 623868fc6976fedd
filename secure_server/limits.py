"""What one peer may cost: gRPC's channel arguments, all of them here.

gRPC ignores an argument that it does not know without a word, so each is tested by its effect.
"""

from __future__ import annotations

from secure_server import descriptors
from secure_server.config import ServerSection
from secure_server.guard.core import MAX_METADATA_BYTES

_SECOND = 1000

HANDSHAKE_TIMEOUT = 10.0
"""Seconds in which a connection must have finished TLS and the HTTP/2 preface."""

MESSAGE_TIMEOUT = 10.0
"""Seconds in which the one message of a unary or server-streaming call must have come."""


def channel_arguments(server: ServerSection, *, servers: int = 1) -> list[tuple[str, int]]:
    """Return the options for ``grpc.server``, of ``servers`` that this process runs at once."""
    return [
        # For the server that comes after; `listening.is_free` sees to it that it is one of ours.
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
        ("grpc.max_receive_message_length", server.max_message_bytes),
        ("grpc.max_concurrent_streams", 1000),
        # A connection outlives the certificate that it was opened under, and moves to the next
        # server before that one is stopped.
        ("grpc.max_connection_age_ms", int(server.retire / 2 * _SECOND)),
        ("grpc.max_connection_age_grace_ms", 3600 * _SECOND),
        ("grpc.keepalive_time_ms", 60 * _SECOND),
        ("grpc.keepalive_timeout_ms", 20 * _SECOND),
        ("grpc.http2.min_ping_interval_without_data_ms", 10 * _SECOND),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
