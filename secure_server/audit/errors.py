"""The error of audit loggers."""

from __future__ import annotations


class AuditLoggerError(Exception):
    """An audit logger cannot be built; the message says why and what to do."""
