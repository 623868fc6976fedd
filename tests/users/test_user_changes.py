"""The feed: nothing missed, nothing twice, whoever wrote it."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

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
    """What is read step by step while others write is exactly 1, 2, 3, …"""
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
