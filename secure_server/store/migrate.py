"""Migrating a database with Alembic's scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, column, inspect, select, table

from secure_server.store.errors import StoreUnusableError

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["HEAD", "SCRIPTS", "revision_of", "to_head"]

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
        if revision_of(connection) == HEAD:
            return
    with _migrating, write() as connection:
        # Another process may have migrated while this one waited for the lock.
        if revision_of(connection) != HEAD:
            _upgrade(connection)


def revision_of(connection: Connection) -> str | None:
    """Return the schema's revision, None where there is no table at all.

    Raises ``StoreUnusableError`` for a database that a newer version or another program wrote.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    if _VERSION.name not in tables:
        raise StoreUnusableError(
            "FOREIGN", "The database belongs to another program. Check the database URL."
        )
    revision: str | None = connection.scalar(select(_VERSION.c.version_num))
    if revision is not None and revision != HEAD and revision not in _known():
        raise StoreUnusableError(
            "NEWER",
            f"The database has the schema {revision!r}, which this version does not know. "
            "Install the version that wrote it, or a newer one.",
        )
    return revision


def _known() -> set[str]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    # Here, because a process that finds its database up to date does not need Alembic.
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config
