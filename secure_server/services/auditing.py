"""What the service writes down besides the door: who did what to whose credentials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from secure_server import logs
from secure_server.auth.identity import Identity
from secure_server.guard import current_caller


def audit(event: str, **fields: object) -> None:
    """Log an event of the call, with the SPIFFE ID of its client certificate.

    An identity becomes two fields, ``subject`` and ``issuer``, or ``by`` and ``by_issuer``.
    """
    peer = current_caller().peer
    logs.logger("secure_server.audit").info(
        event, peer=None if peer is None else peer.spiffe_id, **dict(_flat(fields))
    )


def _flat(fields: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        if isinstance(value, Identity):
            yield name, value.subject
            yield "issuer" if name == "subject" else f"{name}_issuer", value.issuer
        else:
            yield name, value
