"""How long a write waits for the write lock, and how many writes may wait."""

import threading
import time

import pytest

from secure_server.store.errors import StoreUnavailableError
from secure_server.store.lock_wait import waiting_at_most, waits_until


@pytest.fixture
def held(database):
    """A write transaction that another thread holds until the test is over."""
    begun, over = threading.Event(), threading.Event()

    def hold():
        with database.write():
            begun.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait(60)
    yield over
    over.set()
    thread.join()


def refused_after(database):
    begin = time.monotonic()
    with pytest.raises(StoreUnavailableError) as error, database.write():
        pass
    assert error.value.code == "LOCKED"
    return time.monotonic() - begin


def test_a_block_waits_no_longer_than_it_may_and_one_inside_it_neither(database, held):
    with waiting_at_most(0.2):
        assert 0.15 < refused_after(database) < 2
        with waiting_at_most(60):
            assert refused_after(database) < 0.1  # the time of the outer one is over
    assert waits_until(5) > time.monotonic() + 4


def test_only_waiting_counts_not_what_is_done_before(database, held):
    """A log-in whose password waited to be hashed may wait as long for the lock as others."""
    with waiting_at_most(0.3):
        time.sleep(0.4)
        assert 0.25 < refused_after(database) < 2
        assert refused_after(database) < 0.1
    with waiting_at_most(60, until=time.monotonic() + 0.2):  # the deadline of a call
        time.sleep(0.1)
        assert refused_after(database) < 0.15
        held.set()
    with waiting_at_most(0.3):
        time.sleep(0.4)
        with database.write():
            pass


def test_it_holds_for_the_lock_of_another_process_too(database, url):
    import sqlite3

    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with waiting_at_most(0.2):
        assert 0.15 < refused_after(database) < 2
    other.execute("ROLLBACK")
    with database.write():  # and the connection is as patient as before
        pass
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000
    other.close()


def test_where_many_wait_already_one_more_is_refused_at_once_and_reads_go_on(database, held):
    """Waiting threads are not available to reads."""
    results = []

    def wait():
        try:
            with database.write():
                results.append("written")
        except StoreUnavailableError as error:
            results.append(error.code)

    waiting = [threading.Thread(target=wait) for _ in range(64)]  # one more than there is room for
    for thread in waiting:
        thread.start()
    while not results:  # long before the five seconds that they wait
        time.sleep(0.01)
    assert results == ["LOCKED"]
    with waiting_at_most(60):
        assert refused_after(database) < 1
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    held.set()
    for thread in waiting:
        thread.join()
    assert sorted(results) == ["LOCKED", *["written"] * 63]
