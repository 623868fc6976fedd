"""Migrations create the tables of the schema, once, in whichever process runs first."""

import json

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from secure_server.auth import Identity, Principal
from secure_server.store import Database, StoreUnusableError, migrate
from secure_server.store.schema import metadata, users
from secure_server.tokens.revocations import Revocation, RevocationKind, Revocations, append
from secure_server.users import Accounts, Passwords, requests
from secure_server.users.errors import InvalidArgumentError
from support.old_store import old_database


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
    """The highest number may be of a deleted line, which a reader has seen."""
    old = old_database(url, monkeypatch, "0001")
    row = "INSERT INTO revocations (kind, value, expire_time) VALUES ('jti', ?, 1e12)"
    with old.write() as connection:
        for value in ("kept", "pruned"):
            connection.exec_driver_sql(row, (value,))
        connection.exec_driver_sql("DELETE FROM revocations WHERE value = 'pruned'")
    old.close()
    new = Database.open(url)
    with new.write() as connection:
        connection.exec_driver_sql(row, ("new",))
        rows = connection.exec_driver_sql("SELECT seq, value, issued_until FROM revocations")
        assert rows.all() == [(1, "kept", None), (3, "new", None)]
    new.close()


OURS, THEIRS = "https://us.example.org", "https://them.example.org"
REVOKED = "INSERT INTO revocations (kind, value, expire_time, issued_until) VALUES (?, ?, 1e12, ?)"
REMEMBERED = (
    "INSERT INTO requests (caller, request_id, digest, result, create_time)"
    " VALUES ('users/admin', ?, ?, ?, 1000)"
)


def held(issuer, *, token="t", session="", subject="users/u", client=""):
    return Principal(
        subject=subject,
        issuer=issuer,
        authenticator="any",
        token_id=token,
        session_id=session,
        client_id=client,
        claims={"iat": 1000},
    )


def revoked_by_an_old_version(url, monkeypatch):
    old = old_database(url, monkeypatch, "0003")
    with old.write() as connection:
        for row in (
            ("jti", "stolen", None),
            ("session", "ended", None),
            ("user", "users/gone", 1000.0),
            ("client", "spiffe://x/gone", 1000.0),
            ("jti", "", None),
            ("jti", "pruned", None),
        ):
            connection.exec_driver_sql(REVOKED, row)
        connection.exec_driver_sql("DELETE FROM revocations WHERE value = 'pruned'")
    old.close()


def test_M1_what_was_revoked_before_issuers_were_written_down_stays_revoked(url, monkeypatch):
    """Sessions, users and clients were of this server; a token may have been any issuer's."""
    revoked_by_an_old_version(url, monkeypatch)
    new = Database.open(url)
    feed = Revocations(new, issuer=OURS, clock=lambda: 2000.0)
    feed.refresh()
    for issuer in (OURS, THEIRS, "api-keys"):
        assert feed.is_revoked(held(issuer, token="stolen"))
        # A row without a name was what logging out without a token came to: it belonged to no
        # credential.
        assert not feed.is_revoked(held(issuer, token=""))
    for one in ({"session": "ended"}, {"subject": "users/gone"}, {"client": "spiffe://x/gone"}):
        assert feed.is_revoked(held(OURS, **one))
        assert not feed.is_revoked(held(THEIRS, **one))
    assert not feed.is_revoked(held(OURS))
    assert len(feed.snapshot) == 4
    with new.read() as connection:
        rows = connection.exec_driver_sql("SELECT seq, issuer, value FROM revocations").all()
    assert [row.seq for row in rows] == [1, 2, 3, 4]
    assert {row.issuer for row in rows} == {""}
    feed.revoke_token(THEIRS, "next", 3000.0)
    with new.read() as connection:
        assert connection.exec_driver_sql("SELECT max(seq) FROM revocations").scalar() == 7
    new.close()


def test_M1_an_old_process_beside_a_new_one_still_revokes(url, monkeypatch):
    """Until the old process is replaced; its lines have no issuer."""
    database = Database.open(url)
    feed = Revocations(database, issuer=OURS, clock=lambda: 2000.0)
    feed.start()
    with database.write() as connection:
        for row in (("jti", "stolen", None), ("user", "users/gone", 1000.0), ("jti", "", None)):
            connection.exec_driver_sql(REVOKED, row)
    feed.refresh()
    assert feed.is_revoked(held(OURS, token="stolen"))
    assert feed.is_revoked(held(OURS, subject="users/gone"))
    assert not feed.is_revoked(held(THEIRS, subject="users/gone"))
    assert not feed.is_revoked(held(OURS, token=""))
    # The same again within that second, and the same ID of one issuer: both count.
    again = Revocation(OURS, RevocationKind.USER, "users/gone")
    with database.write() as connection:
        append(connection, again, expire_time=9e11, now=2000.0, issued_until=1000.0)
    feed.revoke_token(THEIRS, "stolen", 9e11)
    assert feed.issued_until(Identity(OURS, "users/gone"), "") == 1001.0
    with database.read() as connection:
        rows = connection.exec_driver_sql("SELECT issuer, value FROM revocations ORDER BY seq")
        assert rows.all() == [
            ("", "stolen"),
            ("", ""),
            (OURS, "users/gone"),
            (THEIRS, "stolen"),
        ]
    database.close()


def test_M2_a_request_that_was_remembered_for_a_subject_alone_is_our_issuers(url, monkeypatch):
    """A repetition gets the same answer; another issuer's subject of that name does not."""
    old = old_database(url, monkeypatch, "0003")
    passwords = Passwords()
    new = Accounts(old, passwords, clock=lambda: 1000.0, end_sessions=lambda *_: 0)
    ada = new.create("ada")
    request = requests.digest("eve", "", "", (), "active", False)
    request_id = "7e3f1a52-3f0e-4a3c-9a55-0d3b6c1f2a77"
    row = (request_id, request, json.dumps(ada.to_json()))
    with old.write() as connection:
        connection.exec_driver_sql(REMEMBERED, row)
    old.close()
    database = Database.open(url)
    accounts = Accounts(database, passwords, clock=lambda: 1000.0, end_sessions=lambda *_: 0)
    accounts.adopt_requests(OURS)
    with database.write() as connection:
        connection.exec_driver_sql(REMEMBERED, row)  # by an old process, which is still there
    accounts.adopt_requests(OURS)
    ours, theirs = (Identity(issuer, "users/admin") for issuer in (OURS, THEIRS))
    assert accounts.create("eve", request_id=request_id, caller=ours) == ada
    eve = accounts.create("eve", request_id=request_id, caller=theirs)
    assert eve.name == "eve"
    assert accounts.create("eve", request_id=request_id, caller=theirs) == eve
    with pytest.raises(InvalidArgumentError):
        accounts.create("bob", request_id=request_id, caller=theirs)
    passwords.close()
    database.close()
