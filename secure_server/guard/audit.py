"""What the guard writes down, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from secure_server import logs
from secure_server.auth.principal import ANONYMOUS, Principal
from secure_tls.peer import Peer


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One decision about one call.

    ``code`` and ``detail`` hold the true reason of a refusal, which the caller never learns;
    ``unverified`` what refused credentials claim of themselves. No field holds a credential.
    """

    method: str
    allowed: bool
    rule: str = ""
    peer: Peer | None = None
    principal: Principal = ANONYMOUS
    code: str = ""
    detail: str = ""
    unverified: dict[str, str] = field(default_factory=dict)


AuditLogger = Callable[[AuditEvent], None]
"""Called on the thread of the call: it must not block. What it raises is logged and dropped."""


def log_audit(event: AuditEvent) -> None:
    """Write an event to the log ``secure_server.audit``."""
    known = {
        "peer": event.peer.spiffe_id if event.peer is not None else None,
        "subject": event.principal.subject,
        "issuer": event.principal.issuer,
        "rule": event.rule,
        "reason": event.code,
        "detail": event.detail,
        "unverified": event.unverified,
    }
    log = logs.logger("secure_server.audit")
    write = log.info if event.allowed else log.warning
    write(
        "call allowed" if event.allowed else "call refused",
        method=event.method,
        **{name: value for name, value in known.items() if value},
    )
