"""The database: read and write transactions, with typed errors."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from secure_server.store import migrate
from secure_server.store.errors import (
    StoreError,
    StoreUnavailableError,
    StoreUnusableError,
    from_sqlite,
)
from secure_server.store.lock_wait import waited, waits_until
from secure_server.store.tailer import Tailer

__all__ = ["Database"]

_WAIT = "secure_server.busy_timeout"  # key of a connection's current timeout, in seconds

_MOST_WRITERS = 64
"""Most threads that wait for the write lock or hold it."""


class Database:
    """One SQLite file, shared by threads and processes.

    Open it after a fork, never before: SQLite's locks do not survive one. A commit that has
    returned is on the disk (``synchronous=FULL``), even if the process is killed. No call waits
    longer than ``busy_timeout`` for a lock or a connection, and no write longer than
    ``waiting_at_most`` allows. Reads do not wait for writes.
    """

    def __init__(self, engine: Engine, path: Path, *, busy_timeout: float) -> None:
        """Called by ``open``; opens no connection itself."""
        self._engine = engine
        self._path = path
        self._busy_timeout = busy_timeout
        self._file = _identity(path)
        # SQLite has one writer at a time. Threads queue for this lock instead of polling SQLite's.
        self._writing = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_MOST_WRITERS)
        self._looking = threading.Lock()
        self._watch: sqlite3.Connection | None = None
        self._watches = 0
        self._closed = False
        self.tailer = Tailer(self.version)

    @classmethod
    def open(cls, url: str, *, busy_timeout: float = 5.0) -> Database:
        """Open ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, and migrate it.

        A missing file is created with mode 0600, in a folder created with mode 0700. Migrations
        run under the write lock: of several processes that open at once, one migrates and the
        others wait. ``busy_timeout`` is in seconds.

        Raises ``StoreUnusableError`` for another kind of URL, a file that is not a database of this
        server or that a newer version wrote, and ``StoreUnavailableError`` where it may work later.
        """
        path = path_of(url)
        _create(path)
        database = cls(_engine(path, busy_timeout), path, busy_timeout=busy_timeout)
        try:
            _use_wal(path, busy_timeout)
            migrate.to_head(database.read, database.write)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a read transaction: all its reads see one snapshot. Raises ``StoreError``."""
        self._check_open()
        with _pool_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begin a write transaction, which holds the write lock (``BEGIN IMMEDIATE``) to its end.

        Leaving the block commits; an exception rolls back. What it has read stays true until the
        commit, so checks inside need no repetition. After the commit, and before the block is left,
        the subscribers of ``tailer`` are told of it on this thread. Do slow work before the
        transaction, not inside; do not nest. Raises ``StoreError``, and then nothing was committed.
        """
        self._check_open()
        # Waiting writers occupy threads of the server, which reads need too.
        if not self._waiting.acquire(blocking=False):
            raise _locked()
        begin, has_begun = time.monotonic(), False
        try:
            with self._turn() as until, _pool_errors(), self._engine.connect() as connection:
                connection.execution_options(write_until=until)
                with connection.begin():
                    has_begun = True
                    waited(time.monotonic() - begin)
                    yield connection
        finally:
            self._waiting.release()
            if not has_begun:
                waited(time.monotonic() - begin)
        self.tailer.look()

    @contextmanager
    def _turn(self) -> Iterator[float]:
        until = waits_until(self._busy_timeout)
        if not self._writing.acquire(timeout=max(0.0, until - time.monotonic())):
            raise _locked()
        try:
            yield until
        finally:
            self._writing.release()

    def version(self) -> tuple[int, int]:
        """Return a value that differs after every commit of any process; takes some microseconds.

        Compare it for equality only. Raises ``StoreError``.
        """
        with self._looking:
            self._check_open()
            try:
                if self._watch is None:
                    # A connection of its own, which never commits: `data_version` counts the
                    # commits of *other* connections. Another connection counts differently.
                    self._watch = _connect(self._path, self._busy_timeout)
                    self._watches += 1
                row = self._watch.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                if self._watch is not None:
                    self._watch.close()
                    self._watch = None
                raise from_sqlite(error) from error
            return self._watches, int(row[0])

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to the file that was opened."""
        return self._file is not None and _identity(self._path) == self._file

    def close(self) -> None:
        """Close every connection and end the tailer. Calling it again does nothing."""
        self._closed = True
        self.tailer.close()
        with self._looking:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        self._engine.dispose()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("CLOSED", "The database is closed.")


def path_of(url: str) -> Path:
    """Return the file that a URL names. Raises ``StoreUnusableError``."""
    try:
        parsed: URL = make_url(url)
    except ArgumentError:
        raise StoreUnusableError(
            "UNSUPPORTED", "The database URL cannot be read. Write sqlite:///path/to/file.db."
        ) from None
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite"}:
        raise StoreUnusableError(
            "UNSUPPORTED",
            f"Databases of the kind {parsed.drivername!r} are not supported. "
            "Write sqlite:///path/to/file.db.",
        )
    name = parsed.database
    if not name or name == ":memory:" or name.startswith("file:") or parsed.query or parsed.host:
        raise StoreUnusableError(
            "UNSUPPORTED", "The database must be a plain file. Write sqlite:///path/to/file.db."
        )
    return Path(name)


def _identity(path: Path) -> tuple[int, int] | None:
    # By `stat`, without opening the file: closing it would drop SQLite's locks.
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # With O_EXCL: closing a file that SQLite has open in this process would drop its locks
        # (sqlite.org/howtocorrupt.html, section 2.2).
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if path.is_file():
            return
        raise no_file() from None
    except OSError as error:
        raise cannot_be_created() from error


def no_file() -> StoreUnusableError:
    """The error for a path that leads to something else."""
    return StoreUnusableError("UNREADABLE", "The database is not a file. Check the database URL.")


def cannot_be_created() -> StoreUnavailableError:
    """The error for a new file that the system does not let be made."""
    return StoreUnavailableError(
        "FAILED", "The database file cannot be created. Check the rights of its folder."
    )


def _connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    # `isolation_level=None`: the driver begins no transaction by itself.
    return sqlite3.connect(
        path, timeout=busy_timeout, isolation_level=None, check_same_thread=False
    )


def _use_wal(path: Path, busy_timeout: float) -> None:
    """Turn on WAL, in which readers and the writer do not block each other; the file keeps it."""
    deadline = time.monotonic() + busy_timeout
    while True:
        connection: sqlite3.Connection | None = None
        try:
            connection = _connect(path, busy_timeout)
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.Error as error:
            translated = from_sqlite(error)
            # Of two processes that switch at once, SQLite answers one with BUSY without waiting.
            if translated.code != "LOCKED" or time.monotonic() > deadline:
                raise translated from error
            time.sleep(0.01)
        else:
            if mode != "wal":
                raise StoreUnusableError(
                    "UNSUPPORTED", "The file system of the database cannot hold a SQLite WAL."
                )
            return
        finally:
            if connection is not None:
                connection.close()


def _engine(path: Path, busy_timeout: float) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": busy_timeout, "check_same_thread": False},
        pool_size=8,
        max_overflow=24,
        pool_timeout=busy_timeout,
        pool_use_lifo=True,
        # Error texts and logs must not contain names and hashes.
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # `_begin` below begins transactions; the driver's own BEGIN would come too late.
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = FULL").close()
        connection.execute("PRAGMA foreign_keys = ON").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        until = connection.get_execution_options().get("write_until")
        wait = busy_timeout if until is None else max(0.0, until - time.monotonic())
        if connection.info.get(_WAIT) != wait:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(wait * 1000)}")
            connection.info[_WAIT] = wait
        connection.exec_driver_sql("BEGIN DEFERRED" if until is None else "BEGIN IMMEDIATE")

    @event.listens_for(engine, "handle_error")
    def _translate(context: ExceptionContext) -> StoreError:
        # SQLAlchemy raises the returned error instead of its own, whose text has the SQL.
        return from_sqlite(context.original_exception)

    return engine


def _locked() -> StoreUnavailableError:
    return StoreUnavailableError(
        "LOCKED", "The database is locked by another writer for too long. Try again."
    )


@contextmanager
def _pool_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError:
        raise StoreUnavailableError(
            "LOCKED", "All connections to the database are in use for too long. Try again."
        ) from None
