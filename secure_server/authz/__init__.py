"""Whether a caller may call: gRPC's authorization policy (gRFC A43) and audit options (A59).

Imports no gRPC and no store: what it decides about is passed in.
"""

from secure_server.authz.audit_options import AuditCondition, NamedLogger
from secure_server.authz.errors import PolicyError
from secure_server.authz.policy import Decision, Policy

__all__ = ["AuditCondition", "Decision", "NamedLogger", "Policy", "PolicyError"]
