"""What the guard writes down, and where."""

from __future__ import annotations

from collections.abc import Callable

from secure_server import logs
from secure_server.audit.event import AuditEvent

__all__ = ["AuditCallback", "AuditEvent", "log_refusal"]

AuditCallback = Callable[[AuditEvent], None]
"""Called on the thread of the call: it must not block. What it raises is logged and dropped."""


def log_refusal(event: AuditEvent) -> None:
    """Write a refusal, with its true reason, to the log ``secure_server.audit``.

    Calls that were allowed are for the loggers that the policy names.
    """
    if event.allowed:
        return
    known = {
        "peer": event.peer.spiffe_id if event.peer is not None else None,
        "subject": event.principal.subject,
        "issuer": event.principal.issuer,
        "rule": event.rule,
        "reason": event.code,
        "detail": event.detail,
        "unverified": event.unverified,
    }
    logs.logger("secure_server.audit").warning(
        "call refused",
        method=event.method,
        **{name: value for name, value in known.items() if value},
    )
