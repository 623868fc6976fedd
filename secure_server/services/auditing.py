"""What the service writes down besides the door: who did what to whose credentials."""

from __future__ import annotations

from secure_server import logs
from secure_server.guard import current_caller


def audit(event: str, **fields: object) -> None:
    """Log an event of the call, with its caller.

    ``peer`` is the SPIFFE ID of the client certificate. ``by`` and ``issuer`` are the principal,
    for a subject alone may be one of several issuers'; both are left out of calls without a token.
    """
    caller = current_caller()
    who: dict[str, object] = {"peer": None if caller.peer is None else caller.peer.spiffe_id}
    if not caller.principal.is_anonymous:
        who |= {"by": caller.principal.subject, "issuer": caller.principal.issuer}
    logs.logger("secure_server.audit").info(event, **who | fields)
