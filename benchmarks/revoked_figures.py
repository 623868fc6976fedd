"""The counts of ``benchmarks.revoked``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.dying import Step


@dataclass
class Figures:
    """The counts. The sets hold names of credentials and must stay empty."""

    rounds: int = 0
    told: int = 0
    in_doubt: int = 0
    """Revocations that were not acknowledged before the kill; each may be in force or not."""
    in_doubt_in_force: int = 0
    checks: int = 0
    revoked_but_served: set[str] = field(default_factory=set)
    """Acknowledged as revoked, and served or renewed by a process."""
    served_wrongly_refused: set[str] = field(default_factory=set)
    """Not revoked, and refused by a process, or their stream ended."""
    disagreed: set[str] = field(default_factory=set)
    """Credentials of an unacknowledged revocation on which processes, restarts or tokens differ."""
    late: set[str] = field(default_factory=set)
    """Refused by the other process, or ended there, and not within a second."""
    noticed_ms: list[float] = field(default_factory=list)
    restarts_ms: list[float] = field(default_factory=list)
    steps: dict[Step, Counter[str]] = field(default_factory=lambda: {s: Counter() for s in Step})

    @property
    def wrong(self) -> set[str]:
        """All violations."""
        return self.revoked_but_served | self.served_wrongly_refused | self.disagreed | self.late

    def summary(self) -> dict[str, Any]:
        """Return counts, and times in milliseconds."""
        counts = {
            name: len(value) if isinstance(value, set) else value
            for name, value in vars(self).items()
            if isinstance(value, (set, int))
        }
        return counts | {
            "noticed_ms_median": round(median(self.noticed_ms)),
            "noticed_ms_max": round(max(self.noticed_ms)),
            "restart_ms_median": round(median(self.restarts_ms)),
            "restart_ms_max": round(max(self.restarts_ms)),
        }
