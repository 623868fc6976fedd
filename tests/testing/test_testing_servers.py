"""A guarded server for the length of a test: real TLS, real tokens, both stacks, four kinds."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from greeter import (
    ADMINS,
    AUDITED,
    KINDS,
    REQUESTS,
    AioGreeter,
    Greeter,
    aio_call,
    aio_refusal,
    call,
)
from secure_server import (
    AuthenticationError,
    Credentials,
    Peer,
    PolicyError,
    Principal,
)
from secure_server.plugins import Scheme
from secure_server.testing import Issuer, aio_guarded_server, guarded_server
from secure_tls import Authority, AuthorityError

DENIED = grpc.StatusCode.PERMISSION_DENIED
REFUSED = grpc.StatusCode.UNAUTHENTICATED


def greeting(kind: str, name: str = "alice") -> bytes:
    return b" ".join([f"{name} spiffe://example.org/client/{name}".encode(), *REQUESTS[kind]])


@pytest.mark.parametrize("kind", KINDS)
def test_the_threaded_server_serves_whom_the_policy_allows(kind: str) -> None:
    greeter = Greeter()
    with guarded_server(greeter.add_to, policy=ADMINS) as server:
        assert call(server.channel("alice", roles=["admin"]), kind) == greeting(kind)
        assert call(server.channel("bob"), kind) is DENIED
        assert call(server.channel("bob", token=False), kind) is REFUSED
        assert [(event.principal.subject, event.code) for event in server.audit] == [
            ("bob", "policy"),
            ("", "anonymous_denied"),
        ]
    assert greeter.reached == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("servicer", [AioGreeter, Greeter])
def test_the_asyncio_server_serves_whom_the_policy_allows(
    kind: str, servicer: type[Greeter]
) -> None:
    greeter = servicer()

    async def main() -> None:
        async with aio_guarded_server(greeter.add_to, policy=ADMINS) as server:
            assert await aio_call(server.channel("alice", roles=["admin"]), kind) == greeting(kind)
            assert await aio_refusal(server.channel("bob"), kind) is DENIED
            assert await aio_refusal(server.channel("bob", token=False), kind) is REFUSED
            assert [(event.principal.subject, event.code) for event in server.audit] == [
                ("bob", "policy"),
                ("", "anonymous_denied"),
            ]

    asyncio.run(main())
    assert greeter.reached == 1


def test_a_token_is_made_with_scopes_and_for_another_subject() -> None:
    with guarded_server(Greeter().add_to, policy=ADMINS) as server:
        channel = server.channel("laptop", subject="users/alice", scopes=["read"])
        assert call(channel) == b"users/alice spiffe://example.org/client/laptop a"


def test_a_policy_may_be_text_and_wrong_ones_raise() -> None:
    with guarded_server(Greeter().add_to, policy=json.dumps(ADMINS)) as server:
        assert call(server.channel(roles=["admin"])) == greeting("unary_unary")
    with (
        pytest.raises(PolicyError),
        guarded_server(Greeter().add_to, policy={"name": "denies all", "allow_rules": []}),
    ):
        pass


def test_calls_that_are_served_are_audited_where_the_policy_says_so() -> None:
    with guarded_server(Greeter().add_to, policy=AUDITED) as server:
        call(server.channel("alice", roles=["admin"]))
        (event,) = server.audit
        server.audit.clear()
        call(server.channel("alice"))
        assert [event.allowed for event in server.audit] == [False]
    assert (event.allowed, event.rule, event.method) == (
        True,
        "admins",
        "/greet.Greeter/unary_unary",
    )
    assert event.peer is not None
    assert event.peer.spiffe_id == "spiffe://example.org/client/alice"


def test_a_stolen_token_is_refused_over_another_certificate() -> None:
    with guarded_server(Greeter().add_to, policy=ADMINS) as server:
        stolen = server.issuer.token(server.client("alice"), roles=["admin"])
        assert call(server.channel("alice", token=stolen)) == greeting("unary_unary")
        assert call(server.channel("mallory", token=stolen)) is REFUSED
        assert server.audit[-1].code == "cnf"


def test_the_same_name_is_the_same_certificate() -> None:
    with guarded_server(Greeter().add_to, policy=ADMINS) as server:
        assert server.client("alice") is server.client("alice")
        assert server.client("alice") is not server.client("bob")
        with pytest.raises(AuthorityError):
            server.channel("no name at all")


def test_a_client_without_a_certificate_of_the_authority_is_refused() -> None:
    stranger = Authority.create("example.org").issue_client("alice")
    with guarded_server(Greeter().add_to, policy=ADMINS) as server:
        bare = grpc.ssl_channel_credentials(server.authority.certificate_pem)
        with grpc.secure_channel(server.address, bare) as channel:
            assert call(channel) is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(server.address) as channel:
            assert call(channel) is grpc.StatusCode.UNAVAILABLE
        assert call(server.channel(stranger)) is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_that_is_handed_in_is_presented() -> None:
    with guarded_server(Greeter().add_to, policy=ADMINS) as server:
        issued = server.authority.issue_client("workload")
        answer = call(server.channel(issued, roles=["admin"]))
        assert answer == b"alice spiffe://example.org/client/workload a"


@pytest.mark.parametrize(
    "making", [{"roles": ["admin"]}, {"scopes": ["read"]}, {"subject": "alice"}]
)
@pytest.mark.parametrize("token", ["a token", False])
def test_roles_without_effect_are_an_error(token: object, making: dict[str, object]) -> None:
    with (
        guarded_server(Greeter().add_to, policy=ADMINS) as server,
        pytest.raises(ValueError, match=r"issuer\.token\(\)"),
    ):
        server.channel("alice", token=token, **making)  # type: ignore[arg-type]


class Keys:
    """A plug-in, as its author would test it."""

    name = "key"
    matchers = (Scheme("Key"),)

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal | None:
        assert credentials is not None
        if credentials.value != "open-sesame":
            raise AuthenticationError("key", "No such key.")
        assert peer is not None
        return Principal(
            subject="robot", issuer="keys", authenticator=self.name, roles=frozenset({"admin"})
        )


def test_an_authenticator_of_ones_own_is_asked_beside_the_issuers() -> None:
    with guarded_server(Greeter().add_to, policy=ADMINS, authenticators=[Keys()]) as server:
        channel = server.channel("robot", token=False)
        good, bad = [("authorization", "Key open-sesame")], [("authorization", "Key guess")]
        assert call(channel, metadata=good) == b"robot spiffe://example.org/client/robot a"
        assert call(channel, metadata=bad) is REFUSED
        assert server.audit[-1].code == "key"
        assert call(server.channel("alice", roles=["admin"])) == greeting("unary_unary")


def test_two_servers_can_share_an_authority_and_an_issuer() -> None:
    authority, issuer = Authority.create("corp.example"), Issuer("https://sso.corp.example", "shop")
    policy = {
        "name": "shop",
        "allow_rules": [
            {
                "name": "corp",
                "source": {
                    "principals": ["spiffe://corp.example/*"],
                    "request_principals": ["https://sso.corp.example/*"],
                },
            }
        ],
    }
    with (
        guarded_server(Greeter().add_to, policy=policy, authority=authority, issuer=issuer) as one,
        guarded_server(Greeter().add_to, policy=policy, authority=authority, issuer=issuer) as two,
        guarded_server(Greeter().add_to, policy=policy, authority=authority) as other,
    ):
        token = issuer.token(one.client("alice"))
        for server in (one, two):
            channel = server.channel(one.client("alice"), token=token)
            assert call(channel) == b"alice spiffe://corp.example/client/alice a"
        assert call(other.channel(one.client("alice"), token=token)) is REFUSED


def test_a_token_expires_when_the_issuers_clock_says_so() -> None:
    now = [time.time()]
    issuer = Issuer(clock=lambda: now[0])
    with guarded_server(Greeter().add_to, policy=ADMINS, issuer=issuer) as server:
        channel = server.channel(roles=["admin"])
        assert call(channel) == greeting("unary_unary")
        now[0] += 3600 + 11  # seconds: its lifetime, and more than clocks may differ
        assert call(channel) is REFUSED
        assert server.audit[-1].code == "expired"
        assert call(server.channel(roles=["admin"])) == greeting("unary_unary")


def test_the_environment_of_a_real_server_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURE_SERVER_TLS__CLIENT_CA", "/nowhere/ca.pem")
    monkeypatch.setenv("SECURE_SERVER_TOKENS__ISSUER", "https://other.example.org")
    with guarded_server(Greeter().add_to, policy=ADMINS) as server:
        assert call(server.channel(roles=["admin"])) == greeting("unary_unary")


def test_no_file_and_no_thread_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with guarded_server(Greeter().add_to, policy=ADMINS) as server:
        channel = server.channel(roles=["admin"])
        call(channel)
        assert list(tmp_path.iterdir()) == [], "no key is written to a file"
    with pytest.raises(ValueError, match="closed channel"):
        call(channel)
    host, port = server.address.split(":")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)))


def fail(*_arguments: object) -> None:
    raise ZeroDivisionError


def test_what_fails_in_the_block_is_what_the_test_sees() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        guarded_server(Greeter().add_to, policy=ADMINS) as server,
    ):
        fail(call(server.channel()))

    async def main() -> None:
        async with aio_guarded_server(AioGreeter().add_to, policy=ADMINS) as server:
            fail(await aio_call(server.channel()))

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_servicers_that_cannot_be_added_are_the_tests_failure() -> None:
    with pytest.raises(ZeroDivisionError), guarded_server(fail, policy=ADMINS):
        pass


class Hanging:
    """A plain function that notices nothing; if its end were waited for, a test would not end."""

    def __init__(self) -> None:
        self.entered, self.over = threading.Event(), threading.Event()

    def add_to(self, server: grpc.Server | grpc.aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(self._hang)
        server.add_registered_method_handlers("greet.Greeter", {"unary_unary": handler})

    def _hang(self, _request: bytes, _context: object) -> bytes:
        self.entered.set()
        self.over.wait()
        return b""


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.over.set()


def test_a_handler_that_hangs_does_not_hold_up_the_end(hanging: Hanging) -> None:
    with guarded_server(hanging.add_to, policy=ADMINS) as server:
        method = server.channel(roles=["admin"]).unary_unary("/greet.Greeter/unary_unary")
        waiting = method.future(b"", timeout=60)
        assert hanging.entered.wait(60)
    assert waiting.code() is grpc.StatusCode.CANCELLED


def test_a_handler_that_hangs_does_not_hold_up_the_end_on_asyncio(hanging: Hanging) -> None:
    async def main() -> grpc.StatusCode:
        async with aio_guarded_server(hanging.add_to, policy=ADMINS) as server:
            method = server.channel(roles=["admin"]).unary_unary("/greet.Greeter/unary_unary")
            waiting = method(b"", timeout=60)
            assert await asyncio.to_thread(hanging.entered.wait, 60)
        return await waiting.code()

    assert asyncio.run(main()) is grpc.StatusCode.CANCELLED
