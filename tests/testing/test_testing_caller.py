"""A unit test of a servicer sets the caller, without a server."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from secure_server import (
    ANONYMOUS,
    Caller,
    Principal,
    current_caller,
    current_principal,
)
from secure_server.testing import as_principal
from secure_tls import Authority, SpiffeIDError, parse_peer


def assert_nobody_is_calling() -> None:
    with pytest.raises(LookupError):
        current_principal()


def test_inside_the_block_there_is_a_caller_and_outside_none() -> None:
    assert_nobody_is_calling()
    with as_principal("alice", roles=["admin"], scopes={"read", "write"}) as caller:
        principal = current_principal()
        assert current_caller() is caller
    assert_nobody_is_calling()
    assert principal.subject == "alice"
    assert principal.roles == {"admin"}
    assert principal.scopes == {"read", "write"}
    assert not principal.is_anonymous


def test_the_peer_is_like_one_of_a_certificate() -> None:
    spiffe_id = "spiffe://corp.example/client/billing"
    real = parse_peer(Authority.create("corp.example").issue_client("billing").certificate_pem)
    with as_principal("alice", peer_spiffe_id=spiffe_id) as caller:
        peer = caller.peer
    assert peer is not None
    assert peer.spiffe_id == real.spiffe_id == spiffe_id
    assert (peer.trust_domain, peer.uri_sans, peer.dns_sans) == (
        real.trust_domain,
        real.uri_sans,
        real.dns_sans,
    )
    assert len(peer.thumbprint) == len(real.thumbprint)
    assert peer.is_valid_at(time.time())
    assert caller.principal.thumbprint == peer.thumbprint
    assert caller.principal.client_id == spiffe_id


def test_an_invalid_spiffe_id_is_refused_and_sets_no_caller() -> None:
    with pytest.raises(SpiffeIDError), as_principal("alice", peer_spiffe_id="alice"):
        pass
    assert_nobody_is_calling()


def test_a_principal_is_used_unchanged() -> None:
    own = Principal(subject="key-7", issuer="keys", authenticator="api_key")
    with as_principal(own):
        assert current_principal() is own
    with as_principal(ANONYMOUS):
        assert current_principal().is_anonymous


def test_blocks_nest_and_restore_the_caller_before() -> None:
    with as_principal("alice"):
        with as_principal("bob"):
            assert current_principal().subject == "bob"
        assert current_principal().subject == "alice"
        with pytest.raises(ZeroDivisionError), as_principal("carol"):
            raise ZeroDivisionError
        assert current_principal().subject == "alice"
    assert_nobody_is_calling()


def test_each_task_of_one_loop_has_its_own_caller() -> None:
    async def call(name: str, turn: asyncio.Barrier) -> tuple[str, str]:
        with as_principal(name):
            await turn.wait()
            mine = current_principal().subject
            child = asyncio.create_task(ask())
        assert_nobody_is_calling()
        return mine, await child

    async def ask() -> str:
        return current_principal().subject

    async def main() -> list[tuple[str, str]]:
        turn = asyncio.Barrier(2)
        return await asyncio.gather(call("alice", turn), call("bob", turn))

    assert asyncio.run(main()) == [("alice", "alice"), ("bob", "bob")]


def test_a_thread_that_is_started_inside_has_no_caller_as_in_a_call() -> None:
    seen: list[Caller | None] = []

    def ask() -> None:
        try:
            seen.append(current_caller())
        except LookupError:
            seen.append(None)

    with as_principal("alice"):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert seen == [None]
