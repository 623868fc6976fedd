"""WatchUsers: every change, in order, once, from any point on."""

import threading
import time
from pathlib import Path

import pytest
from services.people import Person, administrator, at_once, fresh, refused
from sqlalchemy import delete, func, select

from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_server.auth import Identity
from secure_server.services.cursors import Cursors
from secure_server.store.database import Database
from secure_server.store.schema import user_changes
from secure_server.store.settings import secret_key
from support.house import DEADLINE, House, running_house

WATCHING = users_pb.WatchUsersResponse.CHANGE_WATCHING
CREATED = users_pb.WatchUsersResponse.CHANGE_CREATED
UPDATED = users_pb.WatchUsersResponse.CHANGE_UPDATED
DELETED = users_pb.WatchUsersResponse.CHANGE_DELETED


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


@pytest.fixture
def resume(admin: Person) -> str:
    """The resume token of the feed's present position."""
    stream, first = admin.watch()
    stream.cancel()
    return first.resume_token


def take(admin: Person, resume_token: str, count: int) -> list[users_pb.WatchUsersResponse]:
    """Resume, read that many changes and hang up."""
    stream, first = admin.watch(resume_token)
    assert first == users_pb.WatchUsersResponse(change=WATCHING, resume_token=resume_token)
    taken = [next(stream) for _ in range(count)]
    stream.cancel()
    return taken


def test_the_first_message_says_where_the_stream_stands_and_what_follows_is_all(
    admin: Person,
) -> None:
    """Each change has the user after it; a deletion has the user before it."""
    stream, first = admin.watch()
    assert first.change == WATCHING
    assert not first.HasField("user")
    assert first.resume_token
    name = fresh("seen")
    created = admin.create(name, roles=["clerk"])
    updated = admin.update(name, ["email"], email="a@example.com")
    admin.update(name, ["email"], email="a@example.com")  # no change, nothing to tell
    admin.do("DeleteUser", users_pb.DeleteUserRequest(name=created.name))
    changes = [next(stream) for _ in range(3)]
    stream.cancel()
    assert [(one.change, one.user) for one in changes] == [
        (CREATED, created),
        (UPDATED, updated),
        (DELETED, updated),
    ]
    assert len({first.resume_token, *(one.resume_token for one in changes)}) == 4


def test_every_message_is_a_place_to_go_on_from_exactly_once(admin: Person, resume: str) -> None:
    names = [admin.create(fresh("seen")).name for _ in range(5)]
    everything = take(admin, resume, 5)
    assert [one.user.name for one in everything] == names
    for number, message in enumerate(everything[:-1], start=1):
        assert take(admin, message.resume_token, 5 - number) == everything[number:]
    stream, _ = admin.watch(everything[-1].resume_token)
    later = admin.create(fresh("seen"))
    assert next(stream).user == later
    stream.cancel()


def test_nothing_is_missed_and_nothing_comes_twice_while_many_write(
    admin: Person, resume: str
) -> None:
    """Two watchers see the same order, and so does one that reconnects all the time."""
    names = [[fresh(f"writer{writer}") for _ in range(6)] for writer in range(4)]
    streams = [admin.watch()[0] for _ in range(2)]
    seen: list[list[str]] = [[], [], []]

    def watch(stream: object, into: list[str]) -> None:
        into.extend(next(stream).user.name for _ in range(24))
        stream.cancel()

    def hang_up() -> None:
        token = resume
        while len(seen[2]) < 24:
            for message in take(admin, token, min(5, 24 - len(seen[2]))):
                seen[2].append(message.user.name)
                token = message.resume_token

    at_once(
        [
            *(lambda s=s, i=i: watch(s, i) for s, i in zip(streams, seen, strict=False)),
            hang_up,
            *(lambda own=own: [admin.create(name) for name in own] for own in names),
        ]
    )
    assert seen[0] == seen[1] == seen[2]
    for own in names:
        resources = [f"users/{name}" for name in own]
        assert [name for name in seen[0] if name in resources] == resources
    assert len(seen[0]) == len(set(seen[0])) == 24


def test_a_mirror_built_as_the_contract_says_is_complete(admin: Person) -> None:
    """Watch, wait for the first message, list, apply: complete wherever the writes fall."""
    stream, _ = admin.watch()
    early = admin.create(fresh("mirror"))
    mirror, token = {}, ""
    while True:
        request = users_pb.ListUsersRequest(page_size=1000, page_token=token)
        page = admin.do("ListUsers", request)
        mirror |= {user.uid: user for user in page.users}
        token = page.next_page_token
        if not token:
            break
    late = admin.create(fresh("mirror"))
    admin.do("DeleteUser", users_pb.DeleteUserRequest(name=early.name))
    for _ in range(3):
        change = next(stream)
        if change.change == DELETED:
            mirror.pop(change.user.uid, None)
        else:
            mirror[change.user.uid] = change.user
    stream.cancel()
    assert late.uid in mirror
    assert early.uid not in mirror


def test_a_place_that_is_not_kept_any_more_is_out_of_range(tmp_path: Path) -> None:
    """So is a number that was never given, for example after the database was restored."""
    with running_house(tmp_path) as house:
        admin = administrator(house, house.first_log_in().access_token)
        stream, _ = admin.watch()
        for number in range(3):
            admin.create(f"u{number}")
        old, recent, newest = (next(stream).resume_token for _ in range(3))
        stream.cancel()
        database = Database.open(house.config.store.url)
        with database.write() as connection:
            last = connection.scalar(select(func.max(user_changes.c.number)))
            connection.execute(delete(user_changes).where(user_changes.c.number < last))
        cursors = Cursors(secret_key(database, "cursors"))
        database.close()
        beyond = cursors.seal(
            "resume_token", Identity(house.config.tokens.issuer, "users/admin"), str(last + 1)
        )
        for token in (old, beyond):
            request = users_pb.WatchUsersRequest(resume_token=token)
            refusal = admin.refused("WatchUsers", request)
            assert refusal.told == ("OUT_OF_RANGE", "CHANGES_NOT_KEPT", "")
        assert [one.user.name for one in take(admin, recent, 1)] == ["users/u2"]
        assert take(admin, newest, 0) == []


def test_a_server_that_stops_tells_its_watchers_to_go_elsewhere(tmp_path: Path) -> None:
    """At once, not after the grace; the next server accepts the resume token."""
    with running_house(tmp_path) as house:
        admin = administrator(house, house.first_log_in().access_token)
        streams = [admin.watch() for _ in range(2)]
        stopping = threading.Thread(target=house.server.stop)
        stopping.start()
        for stream, _ in streams:
            assert refused(list, stream).told == ("UNAVAILABLE", "SERVER_ROTATING", "")
        stopping.join(timeout=house.config.server.grace / 2)
        assert not stopping.is_alive(), "the stop must not wait for the grace to end"


def test_the_threads_of_watchers_who_hang_up_come_back(tmp_path: Path) -> None:
    """Within seconds, although no change is sent to them."""
    with running_house(tmp_path) as house:
        admin = administrator(house, house.first_log_in().access_token)
        free = house.server._guard.streams._free
        before = free._value
        streams = [admin.watch()[0] for _ in range(5)]
        assert free._value == before - 5
        for stream in streams:
            stream.cancel()
        deadline = time.monotonic() + DEADLINE
        while free._value < before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert free._value == before
