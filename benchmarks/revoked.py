"""``python -m benchmarks.revoked``: kill -9 at each step of a revocation, then check calls."""

from __future__ import annotations

import json
import secrets
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.revoked_figures import Figures
from benchmarks.revoked_rounds import Rounds

_MOST_NAMES = 20
_MEANINGS = {
    "rounds": "kills, each followed by a restart on the same store",
    "told": "revocations that were acknowledged",
    "in_doubt": "revocations under way when the kill came",
    "in_doubt_in_force": "of these, how many are in force",
    "checks": "calls, refreshes and streams that were checked",
    "revoked_but_served": "acknowledged, and served by a process or renewed",
    "served_wrongly_refused": "not revoked, and refused, or the stream ended",
    "disagreed": "in doubt, and not the same for all processes, restarts and tokens",
    "late": "noticed by the other process, and not within a second",
    "noticed_ms_median": "until the other process refused",
    "noticed_ms_max": "",
    "restart_ms_median": "from the start of the process until it serves",
    "restart_ms_max": "",
}


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How many times to kill.")] = 100,
    seed: Annotated[
        int | None, typer.Option(help="Decides when to kill. [a new one, printed]")
    ] = None,
) -> None:
    """Revoke, kill -9 the server at a step of it, start it again, and call with every credential.

    Exits with 1 if anything revoked was served or anything else refused. The last line is JSON.
    """
    console = Console(highlight=False)
    chosen = secrets.randbits(32) if seed is None else seed
    console.print(f"seed {chosen}")
    with tempfile.TemporaryDirectory(prefix="revoked-") as folder:
        killed = Rounds(Path(folder), seed=chosen)
        for figures in killed.run(rounds):
            if figures.rounds % 10 == 0 or figures.wrong:
                console.print(
                    f"{figures.rounds} rounds, {figures.told} acknowledged, "
                    f"{len(figures.revoked_but_served)} of them served"
                )
    figures = killed.figures
    console.print(_by_step(figures))
    summary = figures.summary()
    table = Table("figure", "", "meaning", title="kill -9 during revocations")
    table.columns[1].justify = "right"
    for name, value in summary.items():
        table.add_row(name, str(value), _MEANINGS[name])
    console.print(table)
    steps = {step.name.lower(): dict(counts) for step, counts in figures.steps.items()}
    print(json.dumps({"seed": chosen} | summary | {"by_step": steps}))
    if wrong := sorted(figures.wrong):
        Console(stderr=True).print("wrong:", *wrong[:_MOST_NAMES], sep="\n")
        raise typer.Exit(1)


def _by_step(figures: Figures) -> Table:
    table = Table("killed", "rounds", "told", "in force", "undone", "wrong", title="By step")
    for column in table.columns[1:]:
        column.justify = "right"
    for step, counts in figures.steps.items():
        wrong = sum(f", {step.name}:" in name for name in figures.wrong)
        columns = (counts[name] for name in ("rounds", "told", "in force", "undone"))
        table.add_row(step.value, *map(str, columns), str(wrong))
    return table


if __name__ == "__main__":
    typer.run(main)
