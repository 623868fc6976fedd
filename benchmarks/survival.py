"""``python -m benchmarks.survival``: kill -9 at any moment; count lost writes."""

from __future__ import annotations

import json
import secrets
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.kill9 import Kill9
from tests.support.running import Installation

_MOST_NAMES = 20
_MEANINGS = {
    "rounds": "kills between writes, each followed by a restart on the same store",
    "acknowledged": "users whose creation was answered",
    "in_doubt": "users whose creation was under way when the kill came",
    "in_doubt_written": "of these, how many are there",
    "lost": "acknowledged, and not there or not in the feed",
    "changed": "acknowledged, and there as another record",
    "duplicated": "in the feed more than once",
    "disordered": "in the feed before a user who was created earlier",
    "unannounced": "there and not in the feed, or the reverse",
    "restart_ms_median": "from the start of the process until it serves",
    "restart_ms_max": "",
}


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How many times to kill.")] = 100,
    writers: Annotated[int, typer.Option(min=1, help="Threads that write at once.")] = 4,
    seed: Annotated[
        int | None, typer.Option(help="Decides when to kill. [a new one, printed]")
    ] = None,
) -> None:
    """Write, kill -9 the server, start it again, and look for every acknowledged write.

    Exits with 1 if anything was lost, changed, duplicated or out of order. The last line is JSON.
    """
    console = Console(highlight=False)
    chosen = secrets.randbits(32) if seed is None else seed
    console.print(f"seed {chosen}")
    with tempfile.TemporaryDirectory(prefix="survival-") as folder:
        kill9 = Kill9(Installation(Path(folder)), seed=chosen, writers=writers)
        for figures in kill9.run(rounds):
            if figures.rounds % 10 == 0 or figures.wrong:
                console.print(
                    f"{figures.rounds} rounds, {figures.acknowledged} acknowledged, "
                    f"{len(figures.lost)} lost"
                )
    summary = kill9.figures.summary()
    table = Table("figure", "", "meaning", title="kill -9")
    table.columns[1].justify = "right"
    for name, value in summary.items():
        table.add_row(name, str(value), _MEANINGS[name])
    console.print(table)
    print(json.dumps({"seed": chosen} | summary))
    if wrong := sorted(kill9.figures.wrong):
        Console(stderr=True).print("wrong:", *wrong[:_MOST_NAMES])
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
