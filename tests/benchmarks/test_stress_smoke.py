"""The stress commands run, and their figures are there."""

from __future__ import annotations

from support.benchmark import run_benchmark


def test_sockets() -> None:
    figures = run_benchmark("stress.sockets", "--sockets", "400", "--seconds", "1")
    assert (figures["sockets"], figures["limit"], figures["pages_failed"]) == (400, 300, 0)
    assert figures["pages"] > 0


def test_revoke_client() -> None:
    figures = run_benchmark("stress.revoke_client", "--sessions", "3000")
    assert (figures["sessions"], figures["failed"]) == (3000, 0)
    assert figures["answered_ms"] <= figures["deleted_ms"]
