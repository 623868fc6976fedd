"""May they: gRPC's own authorization policy (gRFC A43), with its audit options (A59).

Knows no gRPC and no store: what it decides about is handed in.
"""

from secure_server.authz.audit import AuditCondition, AuditLogger
from secure_server.authz.errors import PolicyError
from secure_server.authz.policy import Decision, Policy

__all__ = ["AuditCondition", "AuditLogger", "Decision", "Policy", "PolicyError"]
