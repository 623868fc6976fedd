"""The guard: peer, principal, decision, handler."""

from secure_server.guard.adapters.threads import GuardInterceptor
from secure_server.guard.caller import Caller, current_caller, current_principal
from secure_server.guard.core import Core
from secure_server.guard.guard import Guard
from secure_server.guard.peers import Peers
from secure_server.guard.refusal_log import AuditCallback, AuditEvent, log_refusal
from secure_server.guard.streams.pool import StreamPool
from secure_server.guard.timeouts import RequestTimeouts
from secure_server.guard.tls_set import TLSSet

__all__ = [
    "AuditCallback",
    "AuditEvent",
    "Caller",
    "Core",
    "Guard",
    "GuardInterceptor",
    "Peers",
    "RequestTimeouts",
    "StreamPool",
    "TLSSet",
    "current_caller",
    "current_principal",
    "log_refusal",
]
