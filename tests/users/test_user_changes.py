"""The feed: every change of every process, once and in order."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from secure_server.store import Database, StoreUnavailableError
from secure_server.users import Changes
from secure_server.users.changes import KEPT_SECONDS
from secure_server.users.errors import OutOfRangeError


@pytest.fixture
def changes(database, clock):
    feed = Changes(database, clock=clock)
    feed.start()
    yield feed
    feed.close()


def make(accounts, *names):
    for name in names:
        accounts.create(name)


def test_an_empty_feed_stands_at_nought(changes):
    assert changes.position() == 0
    assert changes.after(0, 10) == []
    for beyond in (1, -1):
        with pytest.raises(OutOfRangeError):
            changes.after(beyond, 10)


def test_the_feed_goes_on_after_any_number(accounts, changes):
    make(accounts, "a", "b", "c")
    assert [c.account.name for c in changes.after(1, 1)] == ["b"]
    assert [c.account.name for c in changes.after(2, 10)] == ["c"]
    assert changes.after(3, 10) == []
    with pytest.raises(OutOfRangeError):
        changes.after(4, 10)


def test_a_week_is_kept_without_gaps_and_the_newest_for_ever(accounts, changes, clock):
    make(accounts, "a", "b")
    clock.now += KEPT_SECONDS + 1
    make(accounts, "c")
    clock.now -= KEPT_SECONDS  # The clock was set back.
    make(accounts, "d")
    clock.now += KEPT_SECONDS
    assert changes.prune() == 2
    assert [c.account.name for c in changes.after(2, 10)] == ["c", "d"]
    with pytest.raises(OutOfRangeError):
        changes.after(1, 10)
    clock.now += 10 * KEPT_SECONDS
    assert changes.prune() == 1
    assert changes.prune() == 0
    assert changes.position() == 4
    make(accounts, "e")
    assert [c.number for c in changes.after(4, 10)] == [5]


def test_concurrent_writers_leave_no_gap_for_a_follower(accounts, changes):
    """A reader that follows while others write reads exactly 1, 2, 3, …"""
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(accounts.create, f"u{i}") for i in range(40)]
        seen = []
        while len(seen) < 40:
            position = seen[-1] if seen else 0
            assert changes.wait(position, 30)
            seen += [c.number for c in changes.after(position, 7)]
        assert seen == list(range(1, 41))
        for future in writing:
            future.result()


def test_waiting_ends_with_the_time_or_with_close(changes):
    assert changes.wait(0, 0.01) is False
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(changes.wait(0, 60))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    changes.close()
    for thread in threads:
        thread.join(30)
    assert results == [False] * 5


OTHER_PROCESS = """
import sys, time
from secure_server.store import Database
from secure_server.users import Accounts, Passwords
database = Database.open(sys.argv[1])
passwords = Passwords(weak_hashes_for_tests=True)
Accounts(database, passwords, clock=time.time, end_sessions=lambda *_: 0).create("theirs")
passwords.close()
database.close()
"""


def test_a_change_of_another_process_ends_the_wait(url, changes):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, url], env=environment)
    assert changes.wait(0, 60)
    assert process.wait() == 0
    assert [c.account.name for c in changes.after(0, 10)] == ["theirs"]


def test_who_follows_needs_no_connection_of_their_own(accounts, clock, url):
    """A thousand streams may follow; the database has a few dozen connections."""
    make(accounts, "a", "b", "c")
    with ExitStack() as stack:
        database = Database.open(url, busy_timeout=0.1)
        stack.callback(database.close)
        changes = Changes(database, clock=clock)
        changes.start()
        stack.callback(changes.close)
        with suppress(StoreUnavailableError):
            for _ in range(100):
                stack.enter_context(database.read())
        with pytest.raises(StoreUnavailableError):
            changes.after(0, 10)
        assert [c.account.name for c in changes.follow(0, 2, 0)] == ["a", "b"]
        assert [c.account.name for c in changes.follow(2, 10, 0)] == ["c"]
        assert list(changes.follow(3, 10, 0.01)) == []


def test_who_follows_from_far_behind_misses_nothing(
    accounts, changes, database, clock, monkeypatch
):
    """Of more changes than memory keeps, read in one look or in many."""
    monkeypatch.setattr("secure_server.users.changes._RECENT", 4)
    make(accounts, *(f"u{number}" for number in range(10)))
    late = Changes(database, clock=clock)
    late.start()
    assert changes.wait(9, 30)
    for feed in (changes, late):
        seen = []
        while len(seen) < 10:
            seen += [c.number for c in feed.follow(len(seen), 3, 0)]
        assert seen == list(range(1, 11))
    late.close()
