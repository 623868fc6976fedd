"""What the service writes down besides the door: who did what to whose credentials."""

from __future__ import annotations

from secure_server import logs
from secure_server.guard import current_caller


def audit(event: str, **fields: object) -> None:
    """Log an event of the call, with the SPIFFE ID of its client certificate."""
    peer = current_caller().peer
    logs.logger("secure_server.audit").info(
        event, peer=None if peer is None else peer.spiffe_id, **fields
    )
