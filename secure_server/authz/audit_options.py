"""Which decisions are to be written down, and by whom (gRFC A59)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class AuditCondition(Enum):
    """Deny and allow are the policy's decision, whichever list of rules led to it."""

    NONE = "NONE"
    ON_DENY = "ON_DENY"
    ON_ALLOW = "ON_ALLOW"
    ON_DENY_AND_ALLOW = "ON_DENY_AND_ALLOW"

    def wants(self, *, allowed: bool) -> bool:
        if self is AuditCondition.ON_DENY_AND_ALLOW:
            return True
        return self is (AuditCondition.ON_ALLOW if allowed else AuditCondition.ON_DENY)


@dataclass(frozen=True, slots=True)
class NamedLogger:
    """One logger to be told. ``name`` is its type; ``config`` is its own, immutable all through."""

    name: str
    config: Mapping[str, Any]
    is_optional: bool


@dataclass(frozen=True, slots=True)
class AuditOptions:
    condition: AuditCondition = AuditCondition.NONE
    loggers: tuple[NamedLogger, ...] = ()

    def wants(self, *, allowed: bool) -> bool:
        """Whether there is an event for this decision: never without a logger to tell (A59)."""
        return bool(self.loggers) and self.condition.wants(allowed=allowed)
