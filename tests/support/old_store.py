"""Databases as older versions left them."""

from __future__ import annotations

import alembic.command
import pytest

from secure_server.store import Database, migrate


def old_database(url: str, monkeypatch: pytest.MonkeyPatch, revision: str) -> Database:
    """Open a database as the scripts made it up to a revision, and no further."""
    upgrade = alembic.command.upgrade
    with monkeypatch.context() as then:
        then.setattr(migrate, "HEAD", revision)
        then.setattr(alembic.command, "upgrade", lambda config, _head: upgrade(config, revision))
        return Database.open(url)
