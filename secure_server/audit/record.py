"""An audit event as gRFC A59 writes it, and with what A59 has no words for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from secure_server.audit.event import AuditEvent

_CONTAINER = "grpc_audit_log"


def a59_record(event: AuditEvent) -> dict[str, Any]:
    """Return the six fields of A59.

    ``matched_rule`` is the rule's name as the policy has it, for ``policy_name`` stands beside it:
    so do A59's own example and C++. (The events of grpc-go have ``<policy>_<rule>`` there, which is
    what its translation to RBAC calls the rule.) It is empty where no rule matched. Where no policy
    was asked, because the credentials were refused, ``policy_name`` is empty too: A59 knows no such
    events.
    """
    return {
        "timestamp": _timestamp(event.time),
        "rpc_method": event.method,
        "principal": _principal(event),
        "policy_name": event.policy,
        "matched_rule": event.rule,
        "authorized": event.allowed,
    }


def full_record(event: AuditEvent) -> dict[str, Any]:
    """Return A59's fields, and after them what else is known: who called, and the true reason."""
    more = {
        "subject": event.principal.subject,
        "issuer": event.principal.issuer,
        "authenticator": event.principal.authenticator,
        "reason": event.code,
        "detail": event.detail,
        "unverified": event.unverified,
    }
    return a59_record(event) | {name: value for name, value in more.items() if value}


def lines(records: Iterable[dict[str, Any]]) -> Iterable[bytes]:
    """Return each record as a line of JSON in A59's container.

    It is ASCII: whatever else a name holds, line breaks and terminal commands among it, is escaped.
    """
    for record in records:
        yield json.dumps({_CONTAINER: record}, separators=(",", ":")).encode() + b"\n"


def _timestamp(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def _principal(event: AuditEvent) -> str:
    """A59: the identity of certificate-based authentication. The first of the kind that rules are
    matched against, as in grpc-go.
    """
    if event.peer is None:
        return ""
    return (event.peer.uri_sans or event.peer.dns_sans or (event.peer.subject,))[0]
