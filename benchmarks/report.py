"""Figures and ratios, for people and for programs."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table

from benchmarks.measure import IN_FLIGHT, PAYLOAD, Figures
from benchmarks.points import Plan, Skipped


@dataclass(frozen=True)
class Row:
    """Median, smallest and largest over the rounds."""

    name: str
    median: float
    min: float
    max: float


@dataclass(frozen=True)
class RatioRow(Row):
    """``met`` is None where there is no goal."""

    goal: float | None
    met: bool | None


@dataclass(frozen=True)
class Report:
    """The outcome of a run. ``figures`` are microseconds of server CPU per call or message."""

    figures: tuple[Row, ...]
    ratios: tuple[RatioRow, ...]
    skipped: tuple[Skipped, ...]
    conditions: dict[str, Any]

    @classmethod
    def of(cls, plan: Plan, figures: Figures, conditions: dict[str, Any]) -> Report:
        """Take ratios within each round, then their median."""
        ratios = []
        for ratio in plan.ratios:
            pairs = zip(figures[ratio.above], figures[ratio.below], strict=True)
            values = [above / below for above, below in pairs]
            middle = median(values)
            met = None if ratio.goal is None else middle <= ratio.goal
            ratios.append(RatioRow(ratio.name, middle, min(values), max(values), ratio.goal, met))
        rows = [
            Row(name, median(values), min(values), max(values)) for name, values in figures.items()
        ]
        return cls(tuple(rows), tuple(ratios), plan.skipped, conditions)

    def as_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "unit": "microseconds of server CPU per call",
            "conditions": self.conditions,
            "figures": [asdict(row) for row in self.figures],
            "ratios": [asdict(row) for row in self.ratios],
            "skipped": [asdict(row) for row in self.skipped],
        }

    def print(self, console: Console) -> None:
        """Print two tables, and a third where something was skipped."""
        figures = Table("server", "µs", "min..max", title="Server CPU per call")
        ratios = Table("ratio", "median", "min..max", "goal", "", title="Ratios")
        for column in (*figures.columns[1:], *ratios.columns[1:]):
            column.justify = "right"
            column.no_wrap = True  # names wrap, numbers do not
        for row in self.figures:
            figures.add_row(row.name, f"{row.median:.0f}", f"{row.min:.0f}..{row.max:.0f}")
        for row in self.ratios:
            goal = "" if row.goal is None else f"≤ {row.goal:.2f}"
            met = "" if row.met is None else "met" if row.met else "missed"
            ratios.add_row(
                row.name, f"{row.median:.2f}", f"{row.min:.2f}..{row.max:.2f}", goal, met
            )
        console.print(figures)
        console.print(ratios)
        if self.skipped:
            skipped = Table("skipped", "reason")
            for missing in self.skipped:
                skipped.add_row(missing.name, missing.reason)
            console.print(skipped)
        console.print(
            ", ".join(f"{name} {value}" for name, value in self.conditions.items()), soft_wrap=True
        )


def conditions(*, calls: int, rounds: int, core: int | None) -> dict[str, Any]:
    """Return the conditions of a run, for comparing it with another."""
    return {
        "calls": calls,
        "rounds": rounds,
        "in flight": IN_FLIGHT,
        "payload bytes": len(PAYLOAD),
        "cores": os.cpu_count(),
        "servers pinned to core": "none" if core is None else core,
        "load average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
    }
