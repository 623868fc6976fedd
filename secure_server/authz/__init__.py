"""May they: gRPC's own authorization policy (gRFC A43), with its audit options (A59).

Knows no gRPC and no store: what it decides about is handed in.
"""

from secure_server.authz.audit_options import AuditCondition, NamedLogger
from secure_server.authz.errors import PolicyError
from secure_server.authz.policy import Decision, Policy

__all__ = ["AuditCondition", "Decision", "NamedLogger", "Policy", "PolicyError"]
