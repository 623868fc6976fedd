"""What the service writes down besides the door: who did what to whose credentials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from secure_server import logs
from secure_server.auth.identity import Identity
from secure_server.guard import current_caller


def log_event(event: str, **fields: object) -> None:
    """Log an event of the call, with its caller.

    ``peer`` is the SPIFFE ID of the client certificate. ``by`` and ``by_issuer`` are the principal,
    for a subject alone may be one of several issuers'; both are left out of calls without a token.
    The identity of another, as ``subject``, becomes ``subject`` and ``issuer`` in the same way.
    """
    caller = current_caller()
    who: dict[str, object] = {"peer": None if caller.peer is None else caller.peer.spiffe_id}
    if not caller.principal.is_anonymous:
        who |= {"by": caller.principal.subject, "by_issuer": caller.principal.issuer}
    logs.logger("secure_server.audit").info(event, **who | dict(_flat(fields)))


def _flat(fields: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        if isinstance(value, Identity):
            yield name, value.subject
            yield "issuer", value.issuer
        else:
            yield name, value
