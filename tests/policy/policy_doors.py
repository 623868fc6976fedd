"""The guard on both stacks, asked over connections that carry any header at all."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from secure_base.reloading import Static
from secure_server.auth.credentials import Credentials
from secure_server.auth.matchers import Scheme
from secure_server.auth.principal import Principal
from secure_server.authz import Policy
from secure_server.guard.refusal_log import AuditEvent
from secure_server.testing import aio_guarded_server, guarded_server
from secure_server.testing.guarded import Guarded
from secure_tls.authority import Authority
from secure_tls.peer import Peer
from support.door import event_loop
from support.raw import RawClient, Reply, tls_context

CLIENTS = ["a", "ab", "b"]
DOMAIN = "x.test"
OPEN = '{"name": "open", "allow_rules": [{"name": "all"}]}'

Headers = Sequence[tuple[str, str]]


def authorization(claims: dict[str, Any]) -> str:
    """The credential of a caller with these claims."""
    return f"Claims {base64.b64encode(json.dumps(claims).encode()).decode()}"


class ClaimsAuthenticator:
    """Accepts any claims unverified, so that calls can have any."""

    name = "claims"
    matchers = (Scheme("claims"),)

    def authenticate(self, credentials: Credentials | None, _peer: Peer | None) -> Principal:
        assert credentials is not None
        claims = json.loads(base64.b64decode(credentials.value))
        return Principal(
            subject=claims["sub"],
            issuer=claims["iss"],
            authenticator=self.name,
            roles=frozenset(claims["roles"]),
            scopes=frozenset(claims["scope"].split()),
            claims=claims,
        )


class _Client(RawClient):
    """Sends the given headers, and of its own only those that every call has."""

    def headers(self, path: str, *extra: tuple[str, str]) -> list[tuple[str, str]]:
        own = [(":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "x")]
        return [*own, *extra]

    def send_call(self, path: str, headers: Headers) -> int:
        """Send a unary call by one write: a second one would wait for the first's ACK."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.headers(path, *headers))
        self.message(stream)
        return stream


@dataclass(frozen=True)
class Answer:
    """The outcome of a call. ``rule`` is None where the policy was not asked."""

    allowed: bool
    rule: str | None
    seen: list[tuple[str, str | bytes]] | None


class Door:
    """One guarded server, whose policy can be replaced, and a connection of each client."""

    def __init__(self, server: Guarded, seen: list[Any]) -> None:
        self._server = server
        self._seen = seen
        ca = server.authority.certificate_pem
        self._clients = {
            name: _Client(server.address, tls_context(ca, server.client(name)), timeout=100)
            for name in CLIENTS
        }

    def ask(self, policy: Policy, client: str, path: str, headers: Headers) -> Answer:
        """Replace the policy, and make one call."""
        return self.begin(policy, client, path, headers)()

    def begin(
        self, policy: Policy, client: str, path: str, headers: Headers
    ) -> Callable[[], Answer]:
        """Do as ``ask`` does, and return what waits for the answer."""
        self._server._guard.core._authorization._policy = Static(policy)
        self._server.audit.clear()
        self._seen.clear()
        connection = self._clients[client]
        stream = connection.send_call(path, headers)
        return lambda: _answer(connection.reply(stream), list(self._server.audit), self._seen)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


def _answer(reply: Reply, events: list[AuditEvent], seen: list[Any]) -> Answer:
    allowed = reply.code is grpc.StatusCode.OK
    rule = None
    for event in events:  # one at the most
        assert event.allowed is allowed
        if event.allowed or event.code in {"policy", "anonymous_denied"}:
            rule = event.rule
    return Answer(allowed, rule, seen[0] if seen else None)


class _Everything(grpc.GenericRpcHandler):
    """Serves every path, and notes what metadata came with the call."""

    def __init__(self, seen: list[Any], *, is_asyncio: bool) -> None:
        def serve(_request: bytes, context: Any) -> bytes:
            seen.append([(name, value) for name, value in context.invocation_metadata()])
            return b""

        async def serve_on_the_loop(request: bytes, context: Any) -> bytes:
            return serve(request, context)

        self._handler = grpc.unary_unary_rpc_method_handler(
            serve_on_the_loop if is_asyncio else serve
        )

    def service(self, _details: Any) -> Any:
        return self._handler


@contextmanager
def running_doors() -> Iterator[dict[str, Door]]:
    """Run the guard on threads and on asyncio."""
    options: dict[str, Any] = {
        "policy": OPEN,
        "authority": Authority.create(DOMAIN),
        "authenticators": [ClaimsAuthenticator()],
    }
    loop = event_loop()
    seen: dict[str, list[Any]] = {"threads": [], "asyncio": []}

    def adding(stack: str) -> Any:
        handler = _Everything(seen[stack], is_asyncio=stack == "asyncio")
        return lambda server: server.add_generic_rpc_handlers([handler])

    on_the_loop = aio_guarded_server(adding("asyncio"), **options)
    with guarded_server(adding("threads"), **options) as server:
        doors = {"threads": Door(server, seen["threads"])}
        try:
            doors["asyncio"] = Door(loop.run(on_the_loop.__aenter__()), seen["asyncio"])
            yield doors
        finally:
            for door in doors.values():
                door.close()
            loop.run(on_the_loop.__aexit__(None, None, None))
