"""The log of refusals."""

from __future__ import annotations

from collections.abc import Callable

from secure_server import logs
from secure_server.audit.event import AuditEvent

__all__ = ["AuditCallback", "AuditEvent", "log_refusal"]

AuditCallback = Callable[[AuditEvent], None]
"""Called on the thread of the call: it must not block. Its exceptions are logged and dropped."""


def log_refusal(event: AuditEvent) -> None:
    """Log a refusal, with its true reason, as ``secure_server.audit``.

    Only the policy's audit loggers record allowed calls.
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
