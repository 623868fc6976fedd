"""A slow issuer and one that is gone: the command runs. Nothing here is about time."""

from support.benchmark import run_benchmark


def test_who_is_known_is_served_beside_a_slow_issuer_and_without_one():
    options = ["--seconds", "1", "--slow", "70", "--rounds", "1"]
    figures = run_benchmark("benchmarks.issuer", *options)
    # Half of 128 threads wait for the issuer, and no more.
    assert figures["slow_introspections"] == {
        "at_once": 70,
        "rounds": 1,
        "OK": 64,
        "UNAVAILABLE": 6,
    }
    times = {"p50_ms", "p99_ms", "max_ms"}
    for name in ("others_alone", "others_beside_slow", "known_keys"):
        assert set(figures[name]) - times == {"OK"}
    assert figures["known_keys_failed"] == 0
    assert figures["new_key_during_outage"] == {"UNAVAILABLE": 1}
