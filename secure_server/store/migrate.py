"""Migrating a database with Alembic's scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

from secure_server.store.errors import StoreUnusableError

__all__ = ["HEAD", "SCRIPTS", "to_head"]

HEAD = "0005"
"""The newest revision. A test checks that it is that of the last script."""

SCRIPTS = Path(__file__).parent / "migrations"

_VERSION = table("alembic_version", column("version_num"))

# Alembic keeps the running migration in a module variable, so only one may run at a time.
_migrating = threading.Lock()

_Transaction = Callable[[], AbstractContextManager[Connection]]


def to_head(read: _Transaction, write: _Transaction) -> None:
    """Apply the missing migrations, all or none of them, under the write lock.

    Raises ``StoreUnusableError`` for a database that a newer version or another program wrote.
    """
    with read() as connection:
        if _revision(connection) == HEAD:
            return
    with _migrating, write() as connection:
        # Another process may have migrated while this one waited for the lock.
        if _revision(connection) != HEAD:
            _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    if _VERSION.name not in tables:
        raise StoreUnusableError(
            "FOREIGN", "The database belongs to another program. Check the database URL."
        )
    revision: str | None = connection.scalar(select(_VERSION.c.version_num))
    return revision


def _upgrade(connection: Connection) -> None:
    # Imported here: a process whose database is up to date does not need Alembic.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    revision = _revision(connection)
    if revision is not None and revision not in known:
        raise StoreUnusableError(
            "NEWER",
            f"The database has the schema {revision!r}, which this version does not know. "
            "Install the version that wrote it, or a newer one.",
        )
    command.upgrade(config, "head")
