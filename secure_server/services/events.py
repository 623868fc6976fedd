"""Audit events of the services: which caller did what to which user's credentials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from secure_server import logs
from secure_server.auth.identity import Identity
from secure_server.guard import current_caller


def log_event(event: str, **fields: object) -> None:
    """Log an event of the current call to ``secure_server.audit``, with its caller.

    ``peer`` is the SPIFFE ID of the client certificate. ``by`` and ``by_issuer`` are the subject
    and issuer of the caller's token: several issuers may have the same subject. Calls without a
    token have neither. A field whose value is an ``Identity`` is logged as the field, with the
    subject, and ``issuer``.
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
