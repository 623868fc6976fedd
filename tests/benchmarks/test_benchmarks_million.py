"""A server starts on many live revocations, and misses none that is made meanwhile."""

from support.benchmark import run_benchmark


def test_revocations_made_while_a_server_loads_are_refused_by_its_first_calls():
    options = ["--revocations", "20000", "--rounds", "1", "--calls", "50"]
    figures = run_benchmark("benchmarks.million", *options)
    assert figures["revocations"] == 20_000
    assert figures["revoked_while_loading"] > 0
    assert figures["missed_while_loading"] == 0
    # Nothing here is about time, which needs quiet; memory does not.
    assert 0 < figures["bytes_per_revocation"] < 400
