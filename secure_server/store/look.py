"""What opening the store would come to, without opening it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import NullPool, create_engine, event
from sqlalchemy.engine import ExceptionContext

from secure_base.creatable import creation_error
from secure_server.store import migrate
from secure_server.store.database import cannot_be_created, no_file, path_of
from secure_server.store.errors import StoreError, from_sqlite

__all__ = ["look"]


def look(url: str) -> str:
    """Say in a sentence what ``Database.open`` would do; change nothing, and make no file.

    Raises ``StoreError`` as a start would, but for what comes and goes: locks, and a full disk.
    """
    path = path_of(url)
    if not os.path.lexists(path):
        if creation_error(path) is not None:
            raise cannot_be_created()
        return f"{path} is made by the first start"
    if not path.is_file():
        raise no_file()
    revision = _revision(path)
    if not os.access(path, os.W_OK, effective_ids=True) or creation_error(path) is not None:
        raise _denied(sqlite3.SQLITE_READONLY)
    if revision == migrate.HEAD:
        return f"{path}, schema {revision}"
    return f"{path}, schema {revision or 'none'}: a start brings it to {migrate.HEAD}"


def _revision(path: Path) -> str | None:
    if not os.access(path, os.R_OK, effective_ids=True):
        raise _denied(sqlite3.SQLITE_CANTOPEN)
    # Where no process has it open there is no log beside it, and SQLite would make one to read by.
    beside = (path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-shm"))
    how = "mode=ro" if all(one.exists() for one in beside) else "mode=ro&immutable=1"
    uri = f"file:{quote(os.fspath(path))}?{how}"
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(uri, uri=True, check_same_thread=False),
        poolclass=NullPool,
        hide_parameters=True,
    )

    @event.listens_for(engine, "handle_error")
    def _translate(context: ExceptionContext) -> StoreError:
        return from_sqlite(context.original_exception)

    with engine.connect() as connection:
        return migrate.revision_of(connection)


def _denied(code: int) -> StoreError:
    error = sqlite3.OperationalError()
    error.sqlite_errorcode = code
    return from_sqlite(error)
