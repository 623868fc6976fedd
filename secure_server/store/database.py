"""The database: transactions that are what they say, and a typed error when they fail."""

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

_WAIT = "secure_server.busy_timeout"  # what a connection of the pool has, in seconds

_MOST_WRITERS = 64
"""Threads that wait for the write lock, or have it, at the most."""


class Database:
    """One SQLite file, shared by threads and processes.

    Open it after a fork, never before: SQLite's locks do not survive one. A commit that returned
    is on the disk (``synchronous=FULL``) and stays there whatever is killed. Nothing waits longer
    than ``busy_timeout`` for a lock or for a connection, and a write no longer than
    ``patience.waiting_at_most`` allows; reads wait for no write.
    """

    def __init__(self, engine: Engine, path: Path, *, busy_timeout: float) -> None:
        """For ``open``; opens nothing itself."""
        self._engine = engine
        self._path = path
        self._busy_timeout = busy_timeout
        self._file = _identity(path)
        # SQLite has one writer at a time. Threads queue here, fairly, instead of polling its lock.
        self._writing = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_MOST_WRITERS)
        self._looking = threading.Lock()
        self._watch: sqlite3.Connection | None = None
        self._watches = 0
        self._closed = False
        self.tailer = Tailer(self.version)

    @classmethod
    def open(cls, url: str, *, busy_timeout: float = 5.0) -> Database:
        """Open ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, brought up to date.

        A missing file is created with mode 0600, in a folder created with mode 0700. Migrations
        run under the write lock: of several processes that open at once, one migrates and the
        others wait. ``busy_timeout`` is in seconds.

        Raises ``StoreUnusableError`` for another kind of URL, a file that is no database of ours
        or one that a newer version wrote, and ``StoreUnavailableError`` where it may work later.
        """
        path = _path_of(url)
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
        """A read transaction: everything in it comes from one snapshot. Raises ``StoreError``."""
        self._check_open()
        with _pool_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The write transaction: it holds the write lock (``BEGIN IMMEDIATE``) from its start.

        Leaving the block commits; an exception rolls back. What it read stays true until the
        commit, so checks made inside need no second look. When the block is left, all that follow
        the database in this process (``tailer``) have been told of the commit. Do slow work before,
        not inside; do not nest. Raises ``StoreError``, and then nothing was committed.
        """
        self._check_open()
        # Threads that wait are threads that no read gets.
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
        """A value that differs after every commit of any process; costs some microseconds.

        Only equality means something. Raises ``StoreError``.
        """
        with self._looking:
            self._check_open()
            try:
                if self._watch is None:
                    # A connection of its own: `data_version` tells of the commits of *others*,
                    # and this one never makes any. Its numbers mean nothing to the next one.
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
        """Whether the file that was opened is still the one at its path."""
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


def _path_of(url: str) -> Path:
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
    # Not opened: closing it again would drop SQLite's locks.
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Exclusively: closing a file that SQLite has open in this process would drop its locks
        # (sqlite.org/howtocorrupt.html, section 2.2).
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if path.is_file():
            return
        raise StoreUnusableError(
            "UNREADABLE", "The database is not a file. Check the database URL."
        ) from None
    except OSError as error:
        raise StoreUnavailableError(
            "FAILED", "The database file cannot be created. Check the rights of its folder."
        ) from error


def _connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    # `isolation_level=None`: the driver begins nothing by itself.
    return sqlite3.connect(
        path, timeout=busy_timeout, isolation_level=None, check_same_thread=False
    )


def _use_wal(path: Path, busy_timeout: float) -> None:
    """Readers and the writer do not block each other. The file remembers the mode."""
    deadline = time.monotonic() + busy_timeout
    while True:
        connection: sqlite3.Connection | None = None
        try:
            connection = _connect(path, busy_timeout)
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.Error as error:
            translated = from_sqlite(error)
            # Two that switch at once: SQLite answers one with BUSY without waiting.
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
        # Names and hashes do not belong into error texts and logs.
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # SQLAlchemy's `begin` below is the only one; the driver's own would come too late.
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
        # SQLAlchemy raises what is returned here in place of its own error, which has the SQL.
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
