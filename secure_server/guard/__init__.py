"""The door: peer, principal, decision, handler."""

from secure_server.guard.audit import AuditEvent, AuditLogger, log_audit
from secure_server.guard.caller import Caller, current_caller, current_principal
from secure_server.guard.core import Core
from secure_server.guard.guard import Guard
from secure_server.guard.patience import Patience
from secure_server.guard.peers import Peers
from secure_server.guard.streams import Streams
from secure_server.guard.sync import GuardInterceptor

__all__ = [
    "AuditEvent",
    "AuditLogger",
    "Caller",
    "Core",
    "Guard",
    "GuardInterceptor",
    "Patience",
    "Peers",
    "Streams",
    "current_caller",
    "current_principal",
    "log_audit",
]
