"""Ending more sessions than one short transaction can: first a cut is committed, then batches."""

import os
import subprocess
import sys
import threading
import time

import pytest
from sessions.principals import ISSUER, token
from sqlalchemy import event, func, insert, select

from secure_server.auth import Identity
from secure_server.store.schema import revocations as feed
from secure_server.store.schema import sessions as table
from secure_server.tokens.errors import RefreshRefusedError
from secure_server.tokens.refresh_tokens import hashed
from secure_server.tokens.sweeping import BATCH, Sweeper

MINE, GATEWAY = "spiffe://x/mine", "spiffe://x/gateway"
MANY = 3 * BATCH
USER = Identity(ISSUER, "users/u1")


@pytest.fixture
def sweeper(database, clock):
    return Sweeper(database, issuer=ISSUER, clock=clock)


def add(database, clock, uid, spiffe_id, count=MANY):
    with database.write() as connection:
        for number in range(count):
            connection.execute(
                insert(table).values(
                    session_id=f"{uid}-{spiffe_id[-4:]}-{number}",
                    user_uid=uid,
                    spiffe_id=spiffe_id,
                    family_hash=hashed(f"{uid}{spiffe_id}{number}".encode()),
                    token_hash=b"",
                    create_time=clock.now - 60,
                    expire_time=clock.now + 100,
                    end_time=clock.now + 200,
                )
            )


def count(database, *which):
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table).where(*which))


def end_many(endings, database, how, keep):
    """End many sessions of u1 through the gateway, except ``keep`` where that is possible."""
    if how == "client":
        return endings.revoke_client(GATEWAY)
    if how == "user":
        return endings.revoke_user("u1", USER)
    if how == "others":
        return endings.end_others("u1", keep.session_id)
    with database.write() as connection:
        return endings.end_all(connection, "u1", keep.session_id if how == "password" else None)


HOW = ["client", "user", "others", "password", "disabled"]


@pytest.mark.parametrize("how", HOW)
def test_however_many_end_it_takes_the_same_few_statements_and_all_are_dead_at_once(
    sessions, endings, database, revocations, clock, how
):
    add(database, clock, "u1", GATEWAY)
    mine, theirs = sessions.open("u1", GATEWAY), sessions.open("u2", MINE)
    clock.now += 0.2  # within one second, too
    statements = []
    event.listen(
        database._engine, "before_cursor_execute", lambda *a: statements.append(a[2]), named=False
    )
    ended = end_many(endings, database, how, mine)
    keeps = how in {"others", "password"}
    assert ended == MANY + (not keeps)
    assert len(statements) < 25
    assert count(database) >= MANY - BATCH + 1  # the rest is not deleted yet
    revocations.refresh()
    dead = [
        token(
            session_id=f"u1-eway-{number}",
            subject="users/u1",
            client=GATEWAY,
            iat=int(clock.now),
        )
        for number in range(MANY)
    ]
    assert all(revocations.is_revoked(each) for each in dead)
    assert not revocations.is_revoked(
        token(session_id=theirs.session_id, subject="users/u2", client=MINE)
    )
    listed = [each.session_id for each in sessions.of_user("u1", limit=10)]
    assert listed == ([mine.session_id] if keeps else [])
    assert sessions.find("u1-eway-1400") is None
    assert [each.session_id for each in sessions.of_user("u2", limit=10)] == [theirs.session_id]
    assert sessions.rotate(theirs.refresh_token, MINE)
    if keeps:
        assert not revocations.is_revoked(
            token(session_id=mine.session_id, subject="users/u1", client=GATEWAY)
        )
        assert sessions.rotate(mine.refresh_token, GATEWAY)
    else:
        with pytest.raises(RefreshRefusedError):
            sessions.rotate(mine.refresh_token, GATEWAY)


@pytest.mark.parametrize("how", HOW)
def test_the_sweeper_deletes_what_was_ended_and_nothing_else_each_batch_by_itself(
    sessions, endings, database, sweeper, clock, how
):
    add(database, clock, "u1", GATEWAY)
    mine, theirs = sessions.open("u1", GATEWAY), sessions.open("u2", MINE)
    end_many(endings, database, how, mine)
    new = sessions.open("u1", GATEWAY)  # in the same second
    deleted = []
    event.listen(
        database._engine,
        "after_cursor_execute",
        lambda _c, cursor, sql, *_: sql.startswith("DELETE") and deleted.append(cursor.rowcount),
    )
    sweeper.sweep()
    assert max(deleted) <= BATCH
    keeps = how in {"others", "password"}
    left = {new.session_id, theirs.session_id} | ({mine.session_id} if keeps else set())
    with database.read() as connection:
        assert set(connection.execute(select(table.c.session_id)).scalars()) == left
    assert sessions.rotate(new.refresh_token, GATEWAY)
    assert sweeper.sweep() == 0


def test_a_session_that_was_refreshed_before_the_cut_gives_no_token_after_it(
    sessions, endings, database, revocations, clock
):
    """However late the token is signed, its `iat` is the time when its session was alive."""
    add(database, clock, "u1", GATEWAY)
    opened = sessions.open("u1", GATEWAY)
    session = sessions.rotate(opened.refresh_token, GATEWAY)
    clock.now += 5
    endings.revoke_client(GATEWAY)
    revocations.refresh()
    late = token(client=GATEWAY, iat=int(session.issued_at))
    assert revocations.is_revoked(late)
    again = sessions.open("u1", GATEWAY)
    assert not revocations.is_revoked(token(client=GATEWAY, iat=int(again.issued_at)))


def test_a_cut_is_not_forgotten_before_its_sessions_are_deleted(
    endings, database, revocations, sweeper, clock
):
    add(database, clock, "u1", GATEWAY)
    endings.revoke_client(GATEWAY)
    clock.now += 1_000_000
    revocations.revoke_token(ISSUER, "another")
    with database.read() as connection:
        assert connection.scalar(select(feed.c.value).where(feed.c.kind == "client")) == GATEWAY
    sweeper.sweep()
    assert count(database) == 0
    sweeper.sweep()
    with database.read() as connection:
        assert connection.scalar(select(feed.c.value).where(feed.c.kind == "client")) is None


def test_it_goes_on_by_itself_and_others_write_in_between(
    sessions, endings, database, sweeper, clock
):
    add(database, clock, "u1", GATEWAY, 8 * BATCH)
    endings._sweep = sweeper.wake
    sweeper.start()
    begin = time.monotonic()
    endings.revoke_client(GATEWAY)
    between = []
    while left := count(database, table.c.spiffe_id == GATEWAY):
        sessions.open("u2", MINE)
        between.append(left)
        assert time.monotonic() - begin < 60
    sweeper.close()
    assert len(set(between)) > 1


def test_what_has_expired_is_forgotten_a_little_at_a_time(database, revocations, clock):
    with database.write() as connection:
        rows = [
            {"issuer": ISSUER, "kind": "jti", "value": str(n), "expire_time": clock.now - 1}
            for n in range(2500)
        ]
        connection.execute(insert(feed), rows)
    left = []
    for number in range(3):
        revocations.revoke_token(ISSUER, f"new-{number}")
        with database.read() as connection:
            left.append(connection.scalar(select(func.count()).select_from(feed)))
    assert left == [1501, 502, 3]


KILLED = """
import os, signal, sys
from secure_server.store import Database
from secure_server.tokens.session_endings import SessionEndings

endings = SessionEndings(Database.open(sys.argv[1]), issuer="https://us.example.org",
                         clock=lambda: float(sys.argv[2]), access_token_lifetime=300.0,
                         sweep=lambda: os.kill(os.getpid(), signal.SIGKILL))
endings.revoke_client("spiffe://x/gateway")
"""


def test_a_process_that_dies_after_the_cut_has_ended_all_and_the_next_deletes_them(
    sessions, database, revocations, sweeper, clock, url
):
    add(database, clock, "u1", GATEWAY)
    mine = sessions.open("u1", GATEWAY)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED, url, str(clock.now)]
    died = subprocess.run(command, env=environment, check=False, timeout=60)
    assert died.returncode == -9
    assert count(database) > 0
    revocations.refresh()
    assert revocations.is_revoked(token(client=GATEWAY, iat=int(clock.now)))
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(mine.refresh_token, GATEWAY)
    sweeper.start()
    end = time.monotonic() + 60
    while count(database):
        assert time.monotonic() < end
        threading.Event().wait(0.01)
    sweeper.close()


@pytest.mark.parametrize("how", ["client", "user"])
def test_a_session_that_begins_in_a_second_to_come_is_ended_too(
    sessions, endings, database, clock, how
):
    """A cut of its user made it begin later than a cut of its client reaches, and the reverse."""
    add(database, clock, "u2" if how == "client" else "u1", GATEWAY)
    if how == "client":
        for _ in range(5):
            endings.revoke_user("u1", USER)
    else:
        endings.revoke_client(MINE)
    later = sessions.open("u1", GATEWAY if how == "client" else MINE)
    assert later.issued_at > clock.now + (4 if how == "client" else 0)
    assert end_many(endings, database, how, None) == MANY + 1
    assert sessions.find(later.session_id) is None
    clock.now += 20
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(later.refresh_token, GATEWAY if how == "client" else MINE)
