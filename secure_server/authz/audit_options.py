"""Which decisions are audited, and by which loggers (gRFC A59)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class AuditCondition(Enum):
    """``DENY`` and ``ALLOW`` are the policy's decision, not the list that the rule stands in."""

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
    """One audit logger. ``name`` is its type; ``config`` its settings, immutable throughout."""

    name: str
    config: Mapping[str, Any]
    is_optional: bool


@dataclass(frozen=True, slots=True)
class AuditOptions:
    condition: AuditCondition = AuditCondition.NONE
    loggers: tuple[NamedLogger, ...] = ()

    def wants(self, *, allowed: bool) -> bool:
        """Whether this decision makes an event; without a logger none does (A59)."""
        return bool(self.loggers) and self.condition.wants(allowed=allowed)
