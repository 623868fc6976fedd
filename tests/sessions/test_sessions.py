"""Refresh tokens: each valid once, for one client certificate, until it expires."""

import threading
from base64 import urlsafe_b64decode
from concurrent.futures import ThreadPoolExecutor

import pytest
from sessions.principals import token
from sqlalchemy import select

from secure_server.store.schema import metadata
from secure_server.store.schema import sessions as table
from secure_server.tokens.errors import (
    RefreshRefusedError,
    RefreshReusedError,
    RefreshStolenError,
    SessionRefusedError,
)
from secure_server.tokens.revocations import LEEWAY_SECONDS
from secure_server.tokens.sessions import REPEAT_SECONDS

IDLE, ACCESS = 1000.0, 300.0
MINE, THEIRS = "spiffe://x/mine", "spiffe://x/theirs"


def count(database):
    with database.read() as connection:
        return len(connection.execute(select(table)).all())


def test_a_session_is_opened_and_continued(sessions, clock):
    opened = sessions.open("u1", MINE)
    assert len(urlsafe_b64decode(opened.refresh_token + "=")) == 32
    assert opened.refresh_expires_at == clock.now + 1000
    clock.now += 500
    renewed = sessions.rotate(opened.refresh_token, MINE)
    assert (renewed.session_id, renewed.user_uid) == (opened.session_id, "u1")
    assert renewed.refresh_token != opened.refresh_token
    assert renewed.refresh_expires_at == clock.now + 1000


def test_160_bits_are_new_each_time(sessions):
    opened = sessions.open("u1", MINE)
    renewed = sessions.rotate(opened.refresh_token, MINE)
    before, after = (
        urlsafe_b64decode(session.refresh_token + "=") for session in (opened, renewed)
    )
    assert before[:12] == after[:12]
    assert before[12:] != after[12:]


@pytest.mark.parametrize("uid", ["off", "missing"])
def test_who_may_not_log_in_gets_no_session(sessions, database, uid):
    with pytest.raises(SessionRefusedError):
        sessions.open(uid, MINE)
    assert count(database) == 0


def test_a_session_needs_a_spiffe_id(sessions):
    with pytest.raises(SessionRefusedError):
        sessions.open("u1", "")


def test_a_session_opened_within_a_transaction_shares_its_fate(sessions, database):
    def open_and_fail():
        with database.write() as connection:
            sessions.open("u1", MINE, connection=connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        open_and_fail()
    assert count(database) == 0
    with database.write() as connection:
        sessions.open("u1", MINE, connection=connection)
    assert count(database) == 1


def test_u13_a_used_token_ends_the_whole_family(sessions, database, revocations):
    first = sessions.open("u1", MINE)
    other = sessions.open("u1", MINE)
    second = sessions.rotate(first.refresh_token, MINE)
    third = sessions.rotate(second.refresh_token, MINE)
    with pytest.raises(RefreshReusedError) as caught:
        sessions.rotate(first.refresh_token, MINE)
    assert (caught.value.session_id, caught.value.user_uid) == (first.session_id, "u1")
    assert first.refresh_token not in str(caught.value)
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(third.refresh_token, MINE)
    revocations.refresh()
    assert revocations.is_revoked(token(session_id=first.session_id))
    assert not revocations.is_revoked(token(session_id=other.session_id))
    assert sessions.rotate(other.refresh_token, MINE)


@pytest.mark.parametrize("used", [False, True])
def test_a_token_from_another_spiffe_id_ends_the_family(sessions, revocations, used):
    opened = sessions.open("u1", MINE)
    live = sessions.rotate(opened.refresh_token, MINE) if used else opened
    with pytest.raises(RefreshStolenError) as caught:
        sessions.rotate(opened.refresh_token, THEIRS)
    assert caught.value.session_id == opened.session_id
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(live.refresh_token, MINE)
    revocations.refresh()
    assert revocations.is_revoked(token(session_id=opened.session_id))


@pytest.mark.parametrize("round_number", range(5))
def test_u15_of_refreshes_at_once_all_get_the_one_next_token(sessions, database, round_number):
    """All saw the valid token before any of them took the write lock."""
    opened = sessions.open("u1", MINE)
    barrier = threading.Barrier(4)
    real = database.write

    def write_together():
        barrier.wait(30)
        return real()

    def rotate():
        return sessions.rotate(opened.refresh_token, MINE)

    database.write = write_together
    with ThreadPoolExecutor(4) as pool:
        results = [future.result() for future in [pool.submit(rotate) for _ in range(4)]]
    database.write = real
    assert len({result.refresh_token for result in results}) == 1
    assert sessions.rotate(results[0].refresh_token, MINE)
    # Afterwards it is what it is: used.
    with pytest.raises(RefreshReusedError):
        sessions.rotate(opened.refresh_token, MINE)


def test_u15_threads_that_race_freely_never_get_two_tokens(sessions):
    for _ in range(10):
        opened = sessions.open("u1", MINE)
        barrier = threading.Barrier(2)

        def rotate(token=opened.refresh_token, barrier=barrier):
            barrier.wait(30)
            return sessions.rotate(token, MINE).refresh_token

        with ThreadPoolExecutor(2) as pool:
            results = {future.result() for future in [pool.submit(rotate) for _ in range(2)]}
        assert len(results) == 1


def test_u15_who_was_overtaken_twice_is_refused_and_the_family_lives(sessions, database):
    """That is no theft: the token was valid when the call began."""
    opened = sessions.open("u1", MINE)
    real, live = database.write, []

    def write_late():
        database.write = real
        second = sessions.rotate(opened.refresh_token, MINE)
        live.append(sessions.rotate(second.refresh_token, MINE))
        return real()

    database.write = write_late
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(opened.refresh_token, MINE)
    assert sessions.rotate(live[0].refresh_token, MINE)


def test_u14_a_refresh_is_repeated_with_the_same_result_for_a_while(sessions, revocations, clock):
    """Any number of times; the time of the first refresh counts."""
    first = sessions.open("u1", MINE)
    second = sessions.rotate(first.refresh_token, MINE)
    for _ in range(2):
        clock.now += REPEAT_SECONDS / 2 - 0.1
        assert sessions.rotate(first.refresh_token, MINE) == second
    revocations.refresh()
    assert not revocations.is_revoked(token(session_id=first.session_id))
    clock.now += 0.2
    with pytest.raises(RefreshReusedError):
        sessions.rotate(first.refresh_token, MINE)
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(second.refresh_token, MINE)


def test_u14_the_grandparent_ends_the_family_at_once(sessions):
    first = sessions.open("u1", MINE)
    second = sessions.rotate(first.refresh_token, MINE)
    third = sessions.rotate(second.refresh_token, MINE)
    assert sessions.rotate(second.refresh_token, MINE) == third
    with pytest.raises(RefreshReusedError):
        sessions.rotate(first.refresh_token, MINE)
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(third.refresh_token, MINE)


def test_u16_the_idle_limit(sessions, clock):
    opened = sessions.open("u1", MINE)
    clock.now += 1000
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(opened.refresh_token, MINE)


def test_u16_the_absolute_limit(sessions, clock):
    start = clock.now
    session = sessions.open("u1", MINE)
    for _ in range(5):
        clock.now += 900
        session = sessions.rotate(session.refresh_token, MINE)
    assert session.refresh_expires_at == start + 5000
    clock.now = start + 5000
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(session.refresh_token, MINE)


@pytest.mark.parametrize("token", ["", "x", "=" * 43, "é" * 43, "A" * 43, "a.b.c", "A" * 1_000_000])
def test_garbage_is_refused_without_the_write_lock(sessions, database, token):
    with database.write(), pytest.raises(RefreshRefusedError):
        sessions.rotate(token, MINE)


def test_a_token_has_one_spelling(sessions):
    token = sessions.open("u1", MINE).refresh_token
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    variants = [token[:-1] + c for c in last if c != token[-1]] + [token + "=", token + "\n"]
    for variant in variants:
        if variant[-1] != token[-1] and urlsafe_b64decode(variant[:43] + "=") == urlsafe_b64decode(
            token + "="
        ):
            with pytest.raises(RefreshRefusedError):
                sessions.rotate(variant, MINE)
    assert sessions.rotate(token, MINE)


def test_a_logout_ends_the_session_and_its_access_tokens(sessions, endings, revocations, clock):
    opened = sessions.open("u1", MINE)
    assert endings.end(opened.session_id) is True
    assert endings.end(opened.session_id) is False
    with pytest.raises(RefreshRefusedError):
        sessions.rotate(opened.refresh_token, MINE)
    revocations.refresh()
    assert revocations.is_revoked(token(session_id=opened.session_id))


def test_all_sessions_of_a_user_end_but_one(sessions, endings, database, revocations, clock):
    sessions.open("u1", MINE)
    clock.now += 999
    mine = [sessions.open("u1", MINE) for _ in range(3)]
    theirs = sessions.open("u2", THEIRS)
    clock.now += 2  # The first has ended by itself: it is not counted.
    with database.write() as connection:
        assert endings.end_all(connection, "u1", mine[0].session_id) == 2
    revocations.refresh()
    assert [revocations.is_revoked(token(session_id=s.session_id)) for s in mine] == [
        False,
        True,
        True,
    ]
    assert sessions.rotate(mine[0].refresh_token, MINE)
    assert sessions.rotate(theirs.refresh_token, THEIRS)
    with database.write() as connection:
        assert endings.end_all(connection, "u1") == 1


def test_expired_sessions_are_forgotten(sessions, database, clock):
    sessions.open("u1", MINE)
    clock.now += IDLE + ACCESS + LEEWAY_SECONDS - 1
    sessions.open("u2", MINE)
    assert count(database) == 2
    clock.now += 1
    sessions.open("u2", MINE)
    assert count(database) == 2


def test_u17_a_stolen_database_has_no_refresh_token(sessions, database):
    opened = sessions.open("u1", MINE)
    raw = urlsafe_b64decode(opened.refresh_token + "=")
    with database.read() as connection:
        stored = str([connection.execute(select(t)).all() for t in metadata.sorted_tables])
    for secret in (opened.refresh_token, str(raw)[2:-1], str(raw[:12])[2:-1], raw.hex()):
        assert secret not in stored
    assert opened.refresh_token not in repr(opened)


RACER = """
import sys, time
from secure_server.store import Database
from secure_server.tokens.session_endings import SessionEndings
from secure_server.tokens.sessions import Sessions
database = Database.open(sys.argv[1])
ours = {"issuer": "https://us.example.org", "clock": lambda: 1_800_000_000.0}
endings = SessionEndings(database, access_token_lifetime=300.0, **ours)
sessions = Sessions(database, endings, idle_lifetime=1000.0, absolute_lifetime=5000.0, **ours)
for token in sys.argv[2:]:
    print(sessions.rotate(token, "spiffe://x/mine").refresh_token)
database.close()
"""


def test_u15_processes_that_race_never_get_two_tokens(sessions, url, run):
    tokens = [sessions.open("u1", MINE).refresh_token for _ in range(20)]
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: run(RACER, url, *tokens).split(), range(2))
    assert one == other
    assert len(set(one)) == 20


def test_live_sessions_are_listed_by_age_a_page_at_a_time(sessions, endings, clock):
    first = sessions.open("u1", MINE)
    clock.now += 500
    used = sessions.rotate(first.refresh_token, MINE)
    rest = [sessions.open("u1", THEIRS) for _ in range(2)]
    sessions.open("u2", MINE)
    ended = sessions.open("u1", MINE)
    endings.end(ended.session_id)
    ids = [first.session_id, *sorted(session.session_id for session in rest)]
    found = sessions.of_user("u1", limit=10)
    assert [each.session_id for each in found] == ids
    assert [each.spiffe_id for each in found] == [MINE, THEIRS, THEIRS]
    assert (found[0].create_time, found[0].last_use_time) == (clock.now - 500, clock.now)
    assert found[0].expire_time == used.refresh_expires_at
    assert found[1].last_use_time == found[1].create_time == clock.now
    page = sessions.of_user("u1", limit=2)
    assert list(page) == list(found[:2])
    after = (page[-1].create_time, page[-1].session_id)
    assert sessions.of_user("u1", after=after, limit=2) == list(found[2:])
    clock.now += 1000
    assert sessions.of_user("u1", limit=10) == []
    # It can be ended still: an access token may have outlived it.
    assert sessions.find(first.session_id) == found[0]
    assert sessions.find(ended.session_id) is None


def test_a_session_that_has_expired_can_be_revoked_while_its_tokens_live(
    sessions, endings, database, revocations, clock
):
    """An access token issued at the last moment outlives its session."""
    old = sessions.open("u1", MINE)
    clock.now += IDLE + ACCESS
    sessions.open("u1", MINE)
    with database.write() as connection:
        assert endings.end_all(connection, "u1") == 1
    revocations.refresh()
    assert revocations.is_revoked(token(session_id=old.session_id))


def test_all_others_end_and_the_one_lives(sessions, endings, revocations):
    mine, other = sessions.open("u1", MINE), sessions.open("u1", THEIRS)
    assert endings.end_others("u1", mine.session_id) == 1
    revocations.refresh()
    assert revocations.is_revoked(token(session_id=other.session_id))
    assert not revocations.is_revoked(token(session_id=mine.session_id))
    assert sessions.rotate(mine.refresh_token, MINE)
