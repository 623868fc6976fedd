"""Audit events as JSON: the fields of gRFC A59, and those that A59 does not have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from secure_server.audit.event import AuditEvent

_CONTAINER = "grpc_audit_log"


def a59_record(event: AuditEvent) -> dict[str, Any]:
    """Return the six fields of A59.

    ``matched_rule`` is the rule's name as the policy has it, as in A59's own example and in C++;
    ``policy_name`` is a field beside it. (grpc-go writes ``<policy>_<rule>``, the name that its
    translation to RBAC gives the rule.) It is empty where no rule matched. Where the credentials
    were refused before the policy decided, ``policy_name`` is empty too; A59 has no such events.
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
    """Return A59's fields, then the caller as it was recognised and the true reason."""
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

    It is ASCII: all other characters of names are escaped, and so are line breaks and terminal
    commands.
    """
    for record in records:
        yield json.dumps({_CONTAINER: record}, separators=(",", ":")).encode() + b"\n"


def _timestamp(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def _principal(event: AuditEvent) -> str:
    """Return the identity of certificate-based authentication (A59): the first SAN of the kind that
    rules are matched against, as in grpc-go.
    """
    if event.peer is None:
        return ""
    return (event.peer.uri_sans or event.peer.dns_sans or (event.peer.subject,))[0]
