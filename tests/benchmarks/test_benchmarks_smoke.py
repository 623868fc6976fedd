"""The benchmark runs and yields its rows. Nothing here is about time: that needs quiet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import http2, points
from benchmarks.credentials import Tokens
from benchmarks.report import Report

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report():
    # Small numbers for slow setups; the rows are the same.
    options = ["--calls", "50", "--rounds", "1", "--scale", "0.01", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_server_has_a_figure(report):
    figures = {row["name"]: row["median"] for row in report["figures"]}
    assert {"bare, no token", "bare", "usual interceptor", "guard"} <= figures.keys()
    assert {"bare, asyncio", "guard, asyncio"} <= figures.keys()
    assert all(figure > 0 for figure in figures.values())


def test_every_goal_stands_beside_its_ratio(report):
    goals = {row["name"]: row["goal"] for row in report["ratios"] if row["goal"] is not None}
    assert goals == {
        "full guard ÷ bare": 1.10,
        "full guard ÷ usual interceptor": 0.45,
        "refusing ÷ serving: no token": 1.0,
        "refusing ÷ serving: malformed": 1.0,
        "refusing ÷ serving: foreign issuer": 1.0,
        "refusing ÷ serving: expired": 1.0,
        "refusing ÷ serving: not allowed": 1.0,
        "refusing ÷ serving: forged signature": 1.6,
        "100 rules ÷ 10": 1.05,
        "10,000 revocations ÷ none": 1.05,
        "1,000 tokens seen ÷ 1": 1.05,
        "audit into a stuck pipe ÷ no audit": 1.05,
        "a stream's message, guard ÷ bare": 1.05,
        "full guard ÷ bare, asyncio": 1.15,
        "full guard ÷ bare, asyncio + uvloop": 1.15,
    }
    assert report["skipped"] == []


def test_without_uvloop_its_rows_are_skipped_with_a_reason(monkeypatch):
    monkeypatch.setattr(points, "find_spec", lambda _name: None)
    laid_out = points.plan(Tokens(*"abcdef"), 1.0)
    reason = "uvloop is not installed"
    assert laid_out.skipped == (
        points.Skipped("bare, asyncio + uvloop", reason),
        points.Skipped("guard, asyncio + uvloop", reason),
        points.Skipped("full guard ÷ bare, asyncio + uvloop", reason),
    )
    names = {point.name for point in laid_out.points}
    assert {"bare, asyncio", "guard, asyncio"} <= names
    assert not any("uvloop" in name for name in names)
    assert all({ratio.above, ratio.below} <= names for ratio in laid_out.ratios)

    console = Console(record=True, width=100)
    figures = {name: [1.0] for name in names}
    made = Report.of(laid_out, figures, {})
    made.print(console)
    assert console.export_text().count(reason) == 3
    assert [row["reason"] for row in made.as_json()["skipped"]] == [reason] * 3


def test_a_goal_is_met_exactly_where_the_median_is_not_above_it(report):
    rows = [row for row in report["ratios"] if row["goal"] is not None]
    assert [row["met"] for row in rows] == [row["median"] <= row["goal"] for row in rows]


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 256, 700, 20_000])
def test_the_load_writes_lengths_as_hpack_says(length):
    encoded = http2._string(b"x" * length)
    # RFC 7541, section 5.1, read back.
    value, at = encoded[0] & 0x7F, 1
    if value == 0x7F:
        shift = 0
        while True:
            value += (encoded[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if not encoded[at - 1] & 0x80:
                break
    assert value == length == len(encoded) - at


def test_counting_instructions_needs_valgrind_and_says_so():
    """With it a run takes minutes, so the suite has none."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instructions"],
        cwd=ROOT,
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "valgrind is missing, which counts them: install the package valgrind.\n"
