"""Audit loggers of a policy (gRFC A59), and what a logger of your own needs: docs/audit.md.

The protocol has version 1 (``AuditLoggerType.api_version``). Later additions will not break
plug-ins of this version.
"""

from secure_server.audit.errors import AuditLoggerError
from secure_server.audit.event import AuditEvent
from secure_server.audit.plugin import AuditLoggerType, AuditSink
from secure_server.fields import File
from secure_server.fields import Section as Settings

__all__ = ["AuditEvent", "AuditLoggerError", "AuditLoggerType", "AuditSink", "File", "Settings"]
