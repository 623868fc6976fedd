"""Bounds of requests: the largest value works, and one more is refused."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from services.people import Person, administrator, fresh, newcomer, update_request

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_server.services.introspection import _Inbox
from secure_server.store import Database
from secure_server.tokens.session_endings import SessionEndings
from secure_server.tokens.sessions import Sessions
from support.door import wait_until
from support.house import House

INVALID = ("INVALID_ARGUMENT", "INVALID_FIELD")


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


def add_sessions(house: House, admin: Person, user: Person, count: int) -> None:
    """Add many sessions directly to the store, to list them."""
    uid = admin.get(user.resource).uid
    database = Database.open(house.config.store.url)
    issuer = house.config.tokens.issuer
    sessions = Sessions(
        database,
        SessionEndings(database, issuer=issuer, clock=time.time, access_token_lifetime=600),
        issuer=issuer,
        clock=time.time,
        idle_lifetime=86400,
        absolute_lifetime=86400,
    )
    with database.write() as connection:
        for _ in range(count):
            sessions.open(uid, f"spiffe://example.org/client/{user.name}", connection=connection)
    database.close()


def session_pages(person: Person, size: int) -> Iterator[list[str]]:
    token = ""
    while True:
        request = tokens_pb.ListSessionsRequest(
            parent=person.resource, page_size=size, page_token=token
        )
        page = person.do("ListSessions", request)
        yield [session.name for session in page.sessions]
        token = page.next_page_token
        if not token:
            return


def test_a_page_of_sessions_has_1000_at_the_most_and_50_unless_said(
    house: House, admin_token: str, admin: Person
) -> None:
    """Also where the request asks for more; and the pages have each session once."""
    user = newcomer(house, admin_token)
    add_sessions(house, admin, user, 1003)  # beside that of the log-in
    everything = [name for page in session_pages(user, 500) for name in page]
    assert len(everything) == len(set(everything)) == 1004
    for size, first in [(2**31 - 1, 1000), (1001, 1000), (1000, 1000), (999, 999), (0, 50)]:
        pages = list(itertools.islice(session_pages(user, size), 2))
        assert len(pages[0]) == first, size
        assert pages[0] + pages[1] == everything[: first + len(pages[1])]


@pytest.mark.parametrize(
    ("method", "good", "bad", "field"),
    [
        (
            "CreateUser",
            lambda: users_pb.CreateUserRequest(user_id=fresh("u"), password="x1y2" * 256),
            lambda: users_pb.CreateUserRequest(user_id=fresh("u"), password="x1y2" * 256 + "z"),
            "password",
        ),
        (
            "CreateUser",
            lambda: users_pb.CreateUserRequest(user_id=fresh("u"), password="x1y2z3w4"),
            lambda: users_pb.CreateUserRequest(user_id=fresh("u"), password="x1y2z3w"),
            "password",
        ),
        (
            "CreateUser",
            lambda: users_pb.CreateUserRequest(user_id=fresh("u").ljust(63, "x")),
            lambda: users_pb.CreateUserRequest(user_id=fresh("u").ljust(64, "x")),
            "user_id",
        ),
        (
            "UpdateUser",
            lambda: update_request("NAME", ["email"], email="x" * 248 + "@x.org"),
            lambda: update_request("NAME", ["email"], email="x" * 249 + "@x.org"),
            "email",
        ),
        (
            "UpdateUser",
            lambda: update_request("NAME", ["display_name"], display_name="é" * 128),
            lambda: update_request("NAME", ["display_name"], display_name="é" * 129),
            "display_name",
        ),
        (
            "UpdateUser",
            lambda: update_request("NAME", ["roles"], roles=[f"r{n}" for n in range(32)]),
            lambda: update_request("NAME", ["roles"], roles=[f"r{n}" for n in range(33)]),
            "roles",
        ),
        (
            "UpdateUser",
            lambda: update_request("NAME", ["roles"], roles=["r" * 63]),
            lambda: update_request("NAME", ["roles"], roles=["r" * 64]),
            "roles",
        ),
        (
            "RevokeToken",
            lambda: tokens_pb.RevokeTokenRequest(token_id="é" * 512),
            lambda: tokens_pb.RevokeTokenRequest(token_id="x" * 513),
            "token_id",
        ),
        (
            "RevokeClient",
            lambda: tokens_pb.RevokeClientRequest(client_id=spiffe_id(2048)),
            lambda: tokens_pb.RevokeClientRequest(client_id=spiffe_id(2049)),
            "client_id",
        ),
        (
            "ListUsers",
            lambda: users_pb.ListUsersRequest(page_size=2**31 - 1),
            lambda: users_pb.ListUsersRequest(page_size=-(2**31)),
            "page_size",
        ),
    ],
    ids=[
        "password, longest",
        "password, shortest",
        "user name",
        "email",
        "display name",
        "roles",
        "role",
        "token id",
        "client id",
        "page size",
    ],
)
def test_the_longest_is_taken_and_one_more_is_not(
    admin: Person, method: str, good, bad, field: str
) -> None:
    name = fresh("bounds")
    admin.create(name)

    def request(make) -> object:
        message = make()
        if method == "UpdateUser":
            message.user.name = f"users/{name}"
        return message

    admin.do(method, request(good))
    assert admin.refused(method, request(bad)).told == (*INVALID, field)


def spiffe_id(length: int) -> str:
    prefix = f"spiffe://example.org/{uuid.uuid4()}/"
    return prefix + "x" * (length - len(prefix))


def test_what_is_wrong_is_told_without_repeating_all_of_it(admin: Person) -> None:
    """An error is sent in a trailer, whose size is limited."""
    path = "\u00e9\n" * 10_000
    refusal = admin.refused("UpdateUser", update_request("admin", [path]))
    assert refusal.told == (*INVALID, "update_mask")
    assert len(refusal.text) < 250
    assert refusal.text.isascii()
    assert refusal.text.isprintable()


def test_questions_are_read_16_ahead_of_their_answers_and_no_further() -> None:
    """Beyond that, HTTP/2 flow control stops the sender; the server queues no more."""
    inbox, read = _Inbox(), 0

    def questions() -> Iterator[tokens_pb.IntrospectRequest]:
        nonlocal read
        for read in range(1, 201):
            yield tokens_pb.IntrospectRequest(correlation_id=str(read))

    reader = threading.Thread(target=inbox.fill, args=(questions(),), daemon=True)
    reader.start()
    for taken in range(100):
        # 16 wait, and the next is in the reader's hand.
        wait_until(lambda ahead=taken + 17: read >= ahead)
        request = inbox.take(10)
        assert request is not None
        assert request.correlation_id == str(taken + 1)
        assert read <= taken + 18
    reader.join(0.2)
    assert reader.is_alive(), "it has read on without an answer"
    assert read == 117
    inbox.close()
    reader.join(10)
    assert not reader.is_alive(), "a stream that is over keeps no thread"
