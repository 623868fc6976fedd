"""The scripts make what the schema says, once, whoever is first."""

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from secure_server.store import Database, StoreUnusableError, migrate
from secure_server.store.schema import metadata, users


def test_the_scripts_end_at_head_in_one_line():
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]


def test_the_migrated_database_is_the_schema(database):
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_feeds_never_give_a_number_twice(database):
    """compare_metadata does not look at AUTOINCREMENT."""
    with database.read() as connection:
        sql = connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'"
        )
        assert set(sql.scalars()) == {"user_changes", "revocations"}


def test_a_newer_database_is_refused_and_left_alone(url, database):
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreUnusableError, match="9999") as caught:
        Database.open(url)
    assert caught.value.code == "NEWER"


OPENER = """
import sys
from sqlalchemy import func, select
from secure_server.store import Database
from secure_server.store.schema import users

database = Database.open(sys.argv[1])
with database.read() as connection:
    print(connection.scalar(select(func.count()).select_from(users)))
database.close()
"""


def test_processes_that_open_at_once_migrate_once(url, spawn):
    processes = [spawn(OPENER, url) for _ in range(4)]
    assert [process.stdout.read().strip() for process in processes] == ["0"] * 4


def test_a_failed_migration_leaves_nothing_behind(url, monkeypatch):
    from alembic import command

    real = command.upgrade

    def fail(config, revision):
        real(config, revision)
        raise ZeroDivisionError

    monkeypatch.setattr(command, "upgrade", fail)
    with pytest.raises(ZeroDivisionError):
        Database.open(url)
    monkeypatch.undo()
    database = Database.open(url)
    with database.read() as connection:
        assert connection.execute(users.select()).all() == []
    database.close()


def test_wider_revocations_keep_what_is_revoked_and_their_last_number(url, monkeypatch):
    """The highest number may be one that is pruned already: a reader has seen it."""
    monkeypatch.setattr(migrate, "HEAD", "0001")
    upgrade = alembic.command.upgrade
    monkeypatch.setattr(alembic.command, "upgrade", lambda config, _head: upgrade(config, "0001"))
    old = Database.open(url)
    row = "INSERT INTO revocations (kind, value, expire_time) VALUES ('jti', ?, 1e12)"
    with old.write() as connection:
        for value in ("kept", "pruned"):
            connection.exec_driver_sql(row, (value,))
        connection.exec_driver_sql("DELETE FROM revocations WHERE value = 'pruned'")
    old.close()
    monkeypatch.undo()
    new = Database.open(url)
    with new.write() as connection:
        connection.exec_driver_sql(row, ("new",))
        rows = connection.exec_driver_sql("SELECT seq, value, issued_until FROM revocations")
        assert rows.all() == [(1, "kept", None), (3, "new", None)]
    new.close()
