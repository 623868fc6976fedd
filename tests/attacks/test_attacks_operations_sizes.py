"""What is too large is refused before the server parses it, and costs other callers nothing."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from h2.events import RemoteSettingsChanged

from secure_server.limits import MAX_METADATA_BYTES
from secure_server.services import introspection, token_service, user_service
from secure_server.users import Changes
from support.house import KINDS, House, bearer, call
from support.raw import raw_client, tls_context

OPEN_METHOD = "/secure_api.tokens.v1.TokenService/GetKeySet"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
# What each handler calls first. Patched there: gRPC holds the methods themselves already.
FIRST_STEPS = {
    "unary_unary": (token_service, "current_caller"),
    "unary_stream": (Changes, "position"),
    "stream_unary": (user_service.UserService, "_create"),
    "stream_stream": (introspection.Introspection, "_describe"),
}


@pytest.fixture
def others_are_served(house: House, admin_token: str) -> Iterator[None]:
    """Calls succeed over an old connection and over a new one."""
    before = house.channel(house.admin)
    assert call(before, metadata=bearer(admin_token)).served
    yield
    assert call(before, metadata=bearer(admin_token)).served
    assert call(house.channel(house.admin), metadata=bearer(admin_token)).served


@pytest.mark.parametrize("size", [17_000, 64_000, 1_000_000])
def test_G16_oversize_metadata_is_refused(house: House, others_are_served: None, size: int) -> None:
    outcome = call(
        house.channel(house.admin),
        metadata=[("x-large", "x" * size)],
        method=OPEN_METHOD,
        request=b"",
    )
    assert outcome.code is EXHAUSTED, outcome


def test_G16_many_small_entries_count_as_much_as_a_large_one(
    house: House, others_are_served: None
) -> None:
    metadata = [(f"x-{number}", "x") for number in range(2000)]
    outcome = call(house.channel(house.admin), metadata=metadata, method=OPEN_METHOD, request=b"")
    assert outcome.code is EXHAUSTED, outcome


@pytest.mark.parametrize("size", [17_000, 200_000, 4_000_000])
def test_G16_oversize_metadata_sent_before_the_settings_are_acknowledged_is_refused(
    house: House, others_are_served: None, log: list[dict[str, Any]], size: int
) -> None:
    """gRPC's own limit does not apply yet; the guard's does."""
    context = tls_context(house.authority.certificate_pem, house.admin.issued)
    entries = [(f"x-{number}", "x" * min(size, 50_000)) for number in range(max(1, size // 50_000))]
    with raw_client(house.address, context) as client:
        reply = client.call(OPEN_METHOD, *entries)
    assert reply.code is EXHAUSTED, reply
    assert reply.body == b""
    assert [line["reason"] for line in log if line["event"] == "call refused"] == ["metadata_size"]


def test_G16_metadata_just_within_the_limit_are_served_and_one_byte_more_is_not(
    house: House,
) -> None:
    """The guard counts as HTTP/2 does: names, values and 32 bytes an entry."""
    context = tls_context(house.authority.certificate_pem, house.admin.issued)

    def code(size: int) -> grpc.StatusCode | None:
        with raw_client(house.address, context) as client:
            return client.call(OPEN_METHOD, ("x-large", "x" * size)).code

    served, refused = MAX_METADATA_BYTES - 400, MAX_METADATA_BYTES
    while refused - served > 1:
        middle = (served + refused) // 2
        if code(middle) is grpc.StatusCode.OK:
            served = middle
        else:
            refused = middle
    assert code(served) is grpc.StatusCode.OK
    assert code(refused) is EXHAUSTED
    assert served + len("x-large") + 32 < MAX_METADATA_BYTES


def test_G16_oversize_metadata_after_the_acknowledgement_is_refused_too(
    house: House, others_are_served: None
) -> None:
    context = tls_context(house.authority.certificate_pem, house.admin.issued)
    with raw_client(house.address, context) as client:
        client.wait_for(RemoteSettingsChanged)
        assert client.call(OPEN_METHOD).code is grpc.StatusCode.OK
        assert client.call(OPEN_METHOD, ("x-large", "x" * 17_000)).code is EXHAUSTED
        assert client.call(OPEN_METHOD).code is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [4 * 2**20 + 1, 32 * 2**20])
def test_G16_an_oversize_message_is_refused_and_no_handler_sees_it(
    house: House,
    admin_token: str,
    others_are_served: None,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    size: int,
) -> None:
    seen = watch_handler(monkeypatch, kind)
    outcome = call(house.channel(house.admin), kind, bearer(admin_token), request=bytes(size))
    assert outcome.code is EXHAUSTED, outcome
    assert seen == []


@pytest.mark.parametrize("kind", KINDS)
def test_G16_a_gzip_bomb_is_refused_and_no_handler_sees_it(
    house: House,
    admin_token: str,
    others_are_served: None,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """64 kB that would become 64 MB."""
    seen = watch_handler(monkeypatch, kind)
    bomb = gzip.compress(bytes(64 * 2**20), 9)
    assert len(bomb) < 100_000
    context = tls_context(house.authority.certificate_pem, house.admin.issued)
    with raw_client(house.address, context) as client:
        stream = client.begin(KINDS[kind][0], ("grpc-encoding", "gzip"), *bearer(admin_token))
        client.message(stream, bomb, compressed=True)
        reply = client.reply(stream)
    assert reply.code is EXHAUSTED, reply
    assert seen == []


def test_compressed_messages_of_a_decent_size_are_served(house: House, admin_token: str) -> None:
    """So the bomb is refused for its size, not for its compression."""
    context = tls_context(house.authority.certificate_pem, house.admin.issued)
    with raw_client(house.address, context) as client:
        stream = client.begin(
            KINDS["unary_unary"][0], ("grpc-encoding", "gzip"), *bearer(admin_token)
        )
        client.message(stream, gzip.compress(b""), compressed=True)
        assert client.reply(stream).code is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", KINDS)
def test_G16_an_anonymous_callers_oversize_message_is_not_even_read(
    house: House, others_are_served: None, kind: str
) -> None:
    outcome = call(house.channel(house.admin), kind, request=bytes(32 * 2**20))
    assert outcome.code in {grpc.StatusCode.UNAUTHENTICATED, EXHAUSTED}, outcome


def watch_handler(monkeypatch: pytest.MonkeyPatch, kind: str) -> list[str]:
    """Record when the handler of this kind runs."""
    seen: list[str] = []
    owner, name = FIRST_STEPS[kind]
    original = getattr(owner, name)

    def spy(*arguments: Any) -> Any:
        seen.append(name)
        return original(*arguments)

    monkeypatch.setattr(owner, name, spy)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_a_decent_size_reaches_the_handler(
    house: House, admin_token: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """So the tests above would notice a handler that runs."""
    seen = watch_handler(monkeypatch, kind)
    assert call(house.channel(house.admin), kind, bearer(admin_token)).served
    assert seen == [FIRST_STEPS[kind][1]]
