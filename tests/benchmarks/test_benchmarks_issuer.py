"""A slow issuer and one that is gone: the command runs. Nothing here is about time."""

from support.benchmark import run_benchmark


def test_a_cached_caller_is_served_beside_a_slow_issuer_and_without_one():
    options = ["--seconds", "1", "--slow", "70", "--rounds", "1"]
    figures = run_benchmark("benchmarks.issuer", *options)
    slow = figures["slow_introspections"]
    # Half of 128 threads wait for the issuer, and no more; some for too long on a busy machine.
    assert slow["OK"] + slow["UNAVAILABLE"] == slow["at_once"] == 70
    assert 1 <= slow["OK"] <= 64
    times = {"p50_ms", "p99_ms", "max_ms"}
    for name in ("others_alone", "others_beside_slow", "known_keys"):
        assert set(figures[name]) - times == {"OK"}
    # The moment in which all wait may be over before a busy machine makes another call in it.
    assert set(figures["others_while_these_wait"]) - times <= {"OK"}
    assert figures["known_keys_failed"] == 0
    assert figures["new_key_during_outage"] == {"UNAVAILABLE": 1}
