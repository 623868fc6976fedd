"""Transactions, durability, permissions and typed errors, on real files and real processes."""

import os
import sqlite3
import stat
import threading
import traceback
import uuid

import pytest
from sqlalchemy import insert, select, text

from secure_server.store import Database, StoreError, StoreUnavailableError, StoreUnusableError
from secure_server.store.schema import settings
from secure_server.store.settings import secret_key


def put(database, name, value=b"x"):
    with database.write() as connection:
        connection.execute(insert(settings).values(name=name, value=value))


def names(database):
    with database.read() as connection:
        return set(connection.scalars(select(settings.c.name)))


def test_new_file_and_folder_belong_to_the_owner_alone(tmp_path, database):
    path = tmp_path / "state/secure.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    put(database, "a")
    for beside in path.parent.iterdir():
        assert stat.S_IMODE(beside.stat().st_mode) == 0o600


def test_connections_have_the_promised_pragmas(database):
    for transaction in (database.read, database.write):
        with transaction() as connection:
            values = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
            assert values == ["wal", 2, 1]


def test_an_exception_rolls_back(database):
    def write_and_fail():
        with database.write() as connection:
            connection.execute(insert(settings).values(name="a", value=b""))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert names(database) == set()


def test_a_read_transaction_is_one_snapshot(database):
    with database.read() as connection:
        query = select(settings.c.name)
        assert connection.scalars(query).all() == []
        put(database, "a")
        assert connection.scalars(query).all() == []
    assert names(database) == {"a"}


def test_write_transactions_never_lose_an_update(database):
    """Read-then-write in 8 threads: BEGIN IMMEDIATE makes each see what the one before wrote."""
    put(database, "count", b"0")

    def add():
        for _ in range(10):
            with database.write() as connection:
                query = select(settings.c.value).where(settings.c.name == "count")
                value = int(connection.scalar(query)) + 1
                connection.execute(settings.update().values(value=str(value).encode()))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.scalar(select(settings.c.value)) == b"80"


def test_a_database_locked_by_another_process_is_a_typed_error(url, tmp_path):
    database = Database.open(url, busy_timeout=0.1)
    other = sqlite3.connect(tmp_path / "state/secure.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError) as caught:
            put(database, "a")
        assert caught.value.code == "LOCKED"
        assert names(database) == set()  # Readers are not disturbed.
        other.execute("ROLLBACK")
        put(database, "a")
    finally:
        other.close()
        database.close()


def test_waiting_threads_give_up_after_the_busy_timeout(url):
    database = Database.open(url, busy_timeout=0.1)
    try:
        with database.write(), pytest.raises(StoreUnavailableError) as caught:
            put(database, "a")
        assert caught.value.code == "LOCKED"
    finally:
        database.close()


def test_errors_show_neither_sql_nor_parameters(database):
    """Their causes, which are printed with them, show none either."""
    name, value = uuid.uuid4().hex, uuid.uuid4().hex.encode()
    put(database, name, value)
    with pytest.raises(StoreError) as caught:
        put(database, name, value)
    shown = "".join(traceback.format_exception(caught.value))
    for secret in ("INSERT INTO settings", name, value.decode()):
        assert secret not in shown


@pytest.mark.parametrize(
    "bad",
    [
        "postgresql://db/secure",
        "mysql+pymysql://db/secure",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=ro",
        "sqlite:////tmp/x.db?timeout=1",
        "not a url",
        "",
    ],
)
def test_other_urls_are_refused_with_a_sentence(bad):
    with pytest.raises(StoreUnusableError, match="sqlite:///path") as caught:
        Database.open(bad)
    assert caught.value.code == "UNSUPPORTED"


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(b"certainly no database" * 100)
    with pytest.raises(StoreUnusableError) as caught:
        Database.open(f"sqlite:///{path}")
    assert caught.value.code == "UNREADABLE"
    assert path.read_bytes() == b"certainly no database" * 100


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "x.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(StoreUnusableError) as caught:
        Database.open(f"sqlite:///{path}")
    assert caught.value.code == "FOREIGN"


def test_a_folder_that_cannot_be_made_is_a_typed_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        Database.open(f"sqlite:///{tmp_path}/file/x.db")
    with pytest.raises(StoreUnusableError):
        Database.open(f"sqlite:///{tmp_path}")


def test_a_closed_database_says_so(url):
    database = Database.open(url)
    database.close()
    database.close()
    for use in (database.read, database.write):
        with pytest.raises(StoreUnavailableError), use():
            pass
    with pytest.raises(StoreUnavailableError):
        database.version()


def test_version_differs_after_commits_and_only_then(url, database):
    before = database.version()
    names(database)
    with pytest.raises(ZeroDivisionError), database.write():
        raise ZeroDivisionError
    assert database.version() == before
    put(database, "a")
    mine = database.version()
    assert mine != before
    second = Database.open(url)
    put(second, "b")
    second.close()
    assert database.version() != mine


def test_a_secret_key_is_made_once_for_all_processes(url, database):
    second = Database.open(url)
    key = secret_key(database, "cursor")
    assert len(key) == 32
    assert secret_key(second, "cursor") == key
    assert secret_key(second, "other") != key
    second.close()


WRITER = """
import sys
from sqlalchemy import insert
from secure_server.store import Database
from secure_server.store.schema import settings
database = Database.open(sys.argv[1])
number = 0
while True:
    with database.write() as connection:
        connection.execute(insert(settings).values(name=f"{sys.argv[2]}-{number}", value=b""))
    print(f"{sys.argv[2]}-{number}", flush=True)
    number += 1
"""


def test_o8_kill_9_of_a_writer_loses_no_acknowledged_write(url, database, spawn):
    acknowledged = set()
    for round_number in range(3):
        process = spawn(WRITER, url, str(round_number))
        for _ in range(5 + round_number):
            acknowledged.add(process.stdout.readline().strip())
        process.kill()
        acknowledged.update(process.stdout.read().splitlines())
        process.wait()
        assert acknowledged <= names(database)
    with database.read() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"


FILLER = """
import resource, sys
from sqlalchemy import insert
from secure_server.store import Database, StoreUnavailableError
from secure_server.store.schema import settings
database = Database.open(sys.argv[1])
with database.write() as connection:
    connection.execute(insert(settings).values(name="kept", value=b""))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    with database.write() as connection:
        connection.execute(insert(settings).values(name="lost", value=bytes(5_000_000)))
except StoreUnavailableError as error:
    print(error.code, flush=True)
"""


def test_o9_a_full_disk_is_a_typed_error_and_corrupts_nothing(url, database, spawn):
    """A limit on file sizes acts like a full disk: both fail in the middle of a write."""
    process = spawn(FILLER, url)
    assert process.stdout.read().strip() in {"FULL", "FAILED"}
    assert names(database) == {"kept"}
    with database.read() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"


def test_a_full_database_is_told_as_full(database):
    with database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailableError) as caught:
        put(database, "big", bytes(1_000_000))
    assert caught.value.code == "FULL"
    put(database, "small")


COMMITTER = """
import sys
from sqlalchemy import insert
from secure_server.store import Database
from secure_server.store.schema import settings
database = Database.open(sys.argv[1])
print("ready", flush=True)
with database.write() as connection:
    connection.execute(insert(settings).values(name="theirs", value=b""))
database.close()
"""


def test_the_tailer_notices_commits_of_this_process_and_of_others(url, database, spawn):
    news = threading.Condition()
    seen = set()

    def on_look(changed):
        if changed:
            with news:
                seen.update(names(database))
                news.notify_all()

    unsubscribe = database.tailer.subscribe(on_look)
    put(database, "mine")
    spawn(COMMITTER, url)
    with news:
        assert news.wait_for(lambda: seen == {"mine", "theirs"}, timeout=20)
    unsubscribe()


def test_a_subscriber_that_fails_is_told_again_and_does_not_disturb_others(database):
    failures = iter([StoreUnavailableError("FAILED", "Not now."), ValueError("A bug.")])
    told, calm = threading.Event(), threading.Event()

    def failing(changed):
        for failure in failures:
            raise failure
        if changed:
            told.set()

    database.tailer.subscribe(failing)
    database.tailer.subscribe(lambda changed: None if changed else calm.set())
    assert told.wait(10)
    assert calm.wait(10)


def test_one_thread_serves_all_subscribers_and_ends_with_the_database(url):
    database = Database.open(url)
    before = {*threading.enumerate()}
    for _ in range(50):
        database.tailer.subscribe(lambda changed: None)
    # Threads of earlier tests may end meanwhile.
    (tailer,) = {*threading.enumerate()} - before
    database.close()
    assert not tailer.is_alive()
    assert {*threading.enumerate()} <= before


@pytest.fixture
def told(database):
    """The threads that tell a subscriber of commits, none of which the tailer's own can be: it
    looks once an hour.
    """
    database.tailer._interval = 3600
    threads = []

    def on_look(changed):
        if changed:
            threads.append(threading.current_thread())

    database.tailer.subscribe(on_look)
    database.tailer.look()
    threads.clear()
    return threads


def test_a_commit_is_told_of_by_its_own_thread_before_the_transaction_returns(database, told):
    put(database, "a")
    assert told == [threading.current_thread()]


def test_a_transaction_that_fails_is_not_told_of(database, told):
    def write_and_fail():
        with database.write() as connection:
            connection.execute(insert(settings).values(name="a", value=b""))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert told == []


@pytest.mark.parametrize(
    "failure", [StoreUnavailableError("FAILED", "Not now."), ValueError("A bug.")], ids=repr
)
def test_a_commit_that_cannot_be_told_of_is_done_all_the_same(database, told, failure):
    """And the next look tells of it, and of nothing twice."""
    failures = [failure]
    heard = []

    def on_look(changed):
        if changed and failures:
            raise failures.pop()
        heard.append(changed)

    database.tailer.subscribe(on_look)
    put(database, "a")
    assert names(database) == {"a"}
    assert heard == []
    database.tailer.look()
    database.tailer.look()
    assert heard == [True, False]
    assert len(told) == 1


def test_a_commit_during_a_look_is_told_of_by_the_next(url, database, told):
    other = Database.open(url)
    heard = []

    def on_look(changed):
        heard.append(changed)
        if len(heard) == 1:
            put(other, "meanwhile")

    database.tailer.subscribe(on_look)
    database.tailer.look()
    database.tailer.look()
    database.tailer.look()
    assert heard == [True, True, False]
    assert len(told) == 1
    other.close()


def test_a_subscriber_is_called_by_one_thread_at_a_time(database, told):
    """A thread that commits meanwhile waits, and then tells of its own commit."""
    inside, leave, calls = threading.Event(), threading.Event(), []

    def on_look(changed):
        calls.append(changed)
        inside.set()
        assert leave.wait(20)

    database.tailer.subscribe(on_look)
    first = threading.Thread(target=database.tailer.look)
    first.start()
    assert inside.wait(20)
    second = threading.Thread(target=put, args=(database, "a"))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    assert calls == [True]
    leave.set()
    first.join()
    second.join()
    assert calls == [True, True]
    assert names(database) == {"a"}


def test_a_commit_after_which_the_version_cannot_be_read_is_done_all_the_same(database, told):
    """And the next look tells of it."""
    database.version()
    database._watch.close()  # each question to it is an error of SQLite's from now on
    put(database, "a")
    assert told == []
    database.tailer.look()
    assert len(told) == 1


def test_files_without_rights_are_a_typed_error(tmp_path, url):
    Database.open(url).close()
    if os.geteuid() == 0:
        pytest.skip("root may do everything")
    (tmp_path / "state/secure.db").chmod(0o400)
    with pytest.raises(StoreUnavailableError):
        Database.open(url)
