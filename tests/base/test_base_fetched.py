"""Fetching on a thread of its own: which callers wait, how long, and how often it fetches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from secure_base.reloading import Fetched, RefreshSchedule, Reloaded
from secure_base.single_flight import SingleFlight
from support.door import wait_until


class AwayError(Exception):
    pass


EMPTY: frozenset[str] = frozenset()


class Issuer:
    """What is fetched from; a fetch waits for ``gate``."""

    def __init__(self) -> None:
        self.keys, self.is_away, self.fetches = frozenset({"a"}), False, 0
        self.gate = threading.Event()
        self.gate.set()
        self.fetched_at: list[float] = []

    def load(self, last: frozenset[str] | None) -> frozenset[str]:
        self.fetches += 1
        self.fetched_at.append(time.monotonic())
        self.gate.wait(60)
        if self.is_away:
            raise AwayError("The issuer is away.")
        return self.keys

    def fetched(self, clock: Callable[[], float] = time.monotonic, **schedule) -> Fetched:
        times = {"refresh": 300.0, "cooldown": 300.0, "max_stale": 86400.0, "patience": 5.0}
        source = Reloaded("keys", self.load, errors=(AwayError,), first=EMPTY)
        return Fetched(source, RefreshSchedule(**(times | schedule)), stale=EMPTY, clock=clock)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.gate.set()


def test_it_is_fetched_again_every_refresh(issuer: Issuer) -> None:
    fetched = issuer.fetched(refresh=0.05)
    fetched.start()
    wait_until(lambda: fetched.value == {"a"})
    issuer.keys = frozenset({"b"})
    wait_until(lambda: fetched.value == {"b"})
    fetched.close()


def test_after_a_failure_it_is_fetched_again_after_the_cooldown_and_the_last_good_one_stays(
    issuer: Issuer,
) -> None:
    fetched = issuer.fetched(refresh=0.02, cooldown=0.3)
    fetched.start()
    wait_until(lambda: issuer.fetches > 1)
    issuer.is_away = True
    wait_until(lambda: bool(fetched.status.failure))
    at = issuer.fetches
    wait_until(lambda: issuer.fetches == at + 1)
    assert issuer.fetched_at[at] - issuer.fetched_at[at - 1] >= 0.3
    assert (fetched.value, fetched.status.failures) == ({"a"}, 1)
    issuer.is_away = False
    wait_until(lambda: not fetched.status.failure)
    fetched.close()


def test_a_missing_key_causes_one_fetch_per_cooldown(issuer: Issuer) -> None:
    now = [0.0]
    fetched = issuer.fetched(lambda: now[0], cooldown=10.0)
    fetched.start()
    wait_until(lambda: fetched.value == {"a"})
    issuer.keys = frozenset({"a", "b"})
    assert fetched.want()
    assert (fetched.value, issuer.fetches) == ({"a", "b"}, 2)
    now[0] = 9.9
    for _ in range(10):
        assert fetched.want()
    assert issuer.fetches == 2
    now[0] = 10.1
    assert fetched.want()
    assert issuer.fetches == 3
    fetched.close()


def test_all_callers_wait_for_one_fetch_inside_their_bulkhead(issuer: Issuer) -> None:
    fetched = issuer.fetched()
    fetched.start()
    wait_until(lambda: fetched.value == {"a"})
    issuer.gate.clear()
    held = threading.Semaphore(0)

    @contextmanager
    def waiting() -> Iterator[None]:
        held.release()
        yield

    threads = [threading.Thread(target=fetched.want, args=(waiting,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert held.acquire(timeout=5)
    issuer.gate.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert issuer.fetches == 2
    fetched.close()


def test_a_waiting_caller_is_released_after_its_patience(issuer: Issuer) -> None:
    issuer.gate.clear()
    fetched = issuer.fetched(patience=0.05)
    fetched.start()
    assert not fetched.want()
    issuer.gate.set()
    fetched.close()


def test_a_value_too_old_is_dropped_and_recovers(issuer: Issuer) -> None:
    now = [0.0]
    fetched = issuer.fetched(lambda: now[0], cooldown=0.02, refresh=0.02, max_stale=100.0)
    told: list[frozenset[str]] = []
    fetched.subscribe(told.append)
    fetched.start()
    wait_until(lambda: fetched.value == {"a"})
    issuer.is_away = True
    wait_until(lambda: bool(fetched.status.failure))
    assert fetched.value == {"a"}
    now[0] = 101.0
    assert fetched.value == EMPTY
    wait_until(lambda: told[-1] == EMPTY)
    issuer.is_away = False
    wait_until(lambda: fetched.value == {"a"})
    fetched.close()
    assert told == [{"a"}, EMPTY, {"a"}]


def test_closing_waits_for_no_fetch_and_releases_callers(issuer: Issuer) -> None:
    released = threading.Event()
    source = Reloaded("keys", issuer.load, errors=(AwayError,), first=EMPTY)
    schedule = RefreshSchedule(refresh=300, cooldown=300, max_stale=300, patience=60)
    fetched = Fetched(source, schedule, stale=EMPTY, release=released.set)
    issuer.gate.clear()
    fetched.start()
    caller = threading.Thread(target=fetched.want)
    caller.start()
    closing = threading.Thread(target=fetched.close)
    closing.start()
    for thread in (closing, caller):
        thread.join(5)
        assert not thread.is_alive()
    assert not released.is_set()
    issuer.gate.set()
    assert released.wait(5)
    assert fetched.want()
    assert issuer.fetches == 1


def test_a_hundred_rounds_leave_no_thread(issuer: Issuer) -> None:
    before = set(threading.enumerate())
    for _ in range(100):
        fetched = issuer.fetched()
        fetched.start()
        fetched.close()
    assert set(threading.enumerate()) <= before  # those of earlier tests may end meanwhile


# Single flight


def test_callers_with_one_key_share_one_flight_and_its_answer() -> None:
    flights: SingleFlight[str, int] = SingleFlight(10)
    gate, calls, held = threading.Event(), [], threading.Semaphore(0)
    answers: list[int | None] = []

    def work() -> int:
        calls.append(1)
        gate.wait(10)
        return 7

    @contextmanager
    def waiting() -> Iterator[None]:
        held.release()
        yield

    def ask() -> None:
        answers.append(flights.do("key", work, waiting=waiting))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for _ in range(4):  # the one that works holds nothing
        assert held.acquire(timeout=5)
    assert flights.do("another", lambda: 8) == 8
    gate.set()
    for thread in threads:
        thread.join(5)
    assert (answers, len(calls)) == ([7] * 5, 1)
    assert not held.acquire(blocking=False)
    assert flights.do("key", lambda: 9) == 9  # nothing is cached


def test_a_failure_reaches_only_its_own_caller_and_no_caller_waits_for_ever() -> None:
    flights: SingleFlight[str, int] = SingleFlight(0.05)
    gate, begun = threading.Event(), threading.Event()
    seen: list[object] = []

    def work() -> int:
        begun.set()
        gate.wait(10)
        raise AwayError("away")

    def ask() -> None:
        try:
            flights.do("key", work)
        except AwayError as error:
            seen.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(5)
    assert flights.do("key", lambda: 9) is None  # it takes too long
    gate.set()
    thread.join(5)
    assert len(seen) == 1
    assert flights.do("key", lambda: 9) == 9
