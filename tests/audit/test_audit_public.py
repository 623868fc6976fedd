"""The public names that a logger plug-in needs."""

from __future__ import annotations

import dataclasses

from secure_server import audit


def test_a_logger_of_ones_own_needs_these_and_no_others() -> None:
    assert audit.__all__ == [
        "AuditEvent",
        "AuditLoggerError",
        "AuditLoggerType",
        "AuditSink",
        "File",
        "Settings",
    ]
    for name in audit.__all__:
        assert getattr(audit, name).__doc__, name


def test_an_event_holds_these() -> None:
    assert [field.name for field in dataclasses.fields(audit.AuditEvent)] == [
        "method",
        "allowed",
        "rule",
        "peer",
        "principal",
        "code",
        "detail",
        "unverified",
        "policy",
        "time",
    ]
