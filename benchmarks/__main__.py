"""``python -m benchmarks``: what the guard costs, as ratios within one run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.credentials import prepare
from benchmarks.machine import server_core, stay_away_from
from benchmarks.measure import measure
from benchmarks.points import plan
from benchmarks.report import Report, conditions


def main(
    *,
    calls: Annotated[int, typer.Option(min=1, help="Calls per server and round.")] = 250,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; ratios are their median.")] = 40,
    scale: Annotated[
        float,
        typer.Option(min=0, max=1, help="Fraction of the rules, tokens and revocations to use."),
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure server CPU per call: a bare mTLS server, the usual interceptor, the guard.

    A missed goal is reported, not an error.
    """
    notes = Console(stderr=True, highlight=False)
    core = server_core()
    stay_away_from(core)
    taken = conditions(calls=calls, rounds=rounds, core=core)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        chosen = plan(prepare(folder), scale)
        figures = measure(
            chosen, folder, calls=calls, rounds=rounds, core=core, progress=notes.print
        )
    report = Report.of(chosen, figures, taken)
    if as_json:
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        report.print(Console(highlight=False))


if __name__ == "__main__":
    typer.run(main)
