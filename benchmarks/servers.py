"""The servers that are compared: one trivial service, with different things in front of it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import grpc
import grpc.aio

from benchmarks.credentials import AUDIENCE, ISSUER, LIFETIME, ROLE, key_ring, read_tokens
from benchmarks.usual_interceptor import UsualInterceptor
from secure_server.app.metrics import Metrics
from secure_server.audit.loggers import Loggers
from secure_server.audit.options import configured_loggers
from secure_server.auth import Authenticators, Credentials, NothingRevoked, Principal
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.auth.keys import FindKey
from secure_server.auth.matchers import CredentialMatcher, Scheme
from secure_server.authz import Policy
from secure_server.guard import AuditEvent, Core, Guard, TLSSet, log_refusal
from secure_server.guard.call import Call
from secure_server.limits import Limits, channel_arguments
from secure_server.tokens.revoked import Entries, RevokedOfIssuer, Snapshot
from secure_tls.peer import Peer

SERVICE = "benchmark.Echo"
UNARY = f"/{SERVICE}/Unary"
STREAM = f"/{SERVICE}/Stream"

SEEN = "Seen"
"""The scheme of stand-in tokens; see ``_Seen``."""

SEEN_DIGITS = 8


Stack = Literal["threads", "asyncio", "asyncio + uvloop"]
"""grpcio's two kinds of server, the second with either event loop."""


@dataclass(frozen=True)
class Guarded:
    """What stands behind the guard, in numbers.

    With ``audited`` every allowed call goes to ``stdout_logger``, which writes into a pipe of which
    the benchmark reads one line, the port.
    """

    rules: int = 10
    revocations: int = 0
    seen: int = 0
    audited: bool = False


@dataclass(frozen=True)
class Server:
    """One of the compared servers.

    ``front`` is what stands before the service: ``bare``, ``usual``, or a guard's numbers.
    """

    front: Guarded | str
    stack: Stack = "threads"


def build(wanted: Server, folder: Path) -> tuple[grpc.Server, int]:
    """Return a threaded server, ready to start, and its port.

    All of them have the limits and the thread pool of the shipped server.
    """
    limits = Limits()
    server = grpc.server(
        ThreadPoolExecutor(limits.door_threads),
        interceptors=_interceptors(wanted.front, folder),
        options=channel_arguments(limits),
    )
    server.add_generic_rpc_handlers((_handlers(_unary, _stream),))
    return server, server.add_secure_port("127.0.0.1:0", _credentials(folder))


def build_aio(wanted: Server, folder: Path) -> tuple[grpc.aio.Server, int]:
    """Return an asyncio server for the running event loop, ready to start, and its port."""
    interceptors = []
    if isinstance(wanted.front, Guarded):
        interceptors.append(_guard(wanted.front, folder).aio_interceptor())
    server = grpc.aio.server(interceptors=interceptors, options=channel_arguments(Limits()))
    server.add_generic_rpc_handlers((_handlers(_aio_unary, _aio_stream),))
    return server, server.add_secure_port("127.0.0.1:0", _credentials(folder))


def _handlers(unary: Callable[..., Any], stream: Callable[..., Any]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Stream": grpc.stream_stream_rpc_method_handler(stream),
        },
    )


def _credentials(folder: Path) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())],
        root_certificates=(folder / "ca.pem").read_bytes(),
        require_client_auth=True,
    )


def _unary(request: bytes, _context: Any) -> bytes:
    return request


def _stream(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
    yield from requests


async def _aio_unary(request: bytes, _context: Any) -> bytes:
    return request


async def _aio_stream(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


def _interceptors(front: Guarded | str, folder: Path) -> list[grpc.ServerInterceptor]:
    if isinstance(front, Guarded):
        return [_guard(front, folder).interceptor()]
    if front == "usual":
        ring = key_ring(folder)
        return [UsualInterceptor(ring.keys[ring.key_id].public_key, ISSUER, AUDIENCE)]
    return []


def _guard(guarded: Guarded, folder: Path) -> Guard:
    """Build the guard as the shipped server does, around numbers instead of a store."""
    ring = key_ring(folder)

    metrics = Metrics()
    loggers = Loggers()
    text = policy_text(guarded.rules, audited=guarded.audited)
    policy = Policy.parse(text)
    loggers.replace(configured_loggers(text, origin="policy"), policy.audit_condition)

    def audit(event: AuditEvent) -> None:
        loggers.write(event)
        metrics.count_audit(event)
        log_refusal(event)

    guard = Guard(
        tls=TLSSet.of_pem(
            *((folder / name).read_bytes() for name in ("server.pem", "server.key", "ca.pem")),
            trust_domains=["example.org"],
        ),
        policy=policy,
        authenticators=Authenticators([_verifier(ring.keys.get), _Seen()]),
        revocations=_Revoked(guarded.revocations),
        audit=audit,
        call_ended=metrics.call_ended,
    )
    _let_in(guard.core, guarded.seen, folder)
    return guard


class _Revoked(NothingRevoked):
    """As many revoked tokens, looked up as the shipped server's guard does, without its feed."""

    def __init__(self, tokens: int) -> None:
        revoked = RevokedOfIssuer({f"{n:032x}": 2.0**33 for n in range(tokens)})
        self.is_revoked = Snapshot(base=Entries({ISSUER: revoked})).is_revoked  # type: ignore[method-assign]


def _verifier(keys: FindKey) -> JWTAuthenticator:
    return JWTAuthenticator(
        name="jwt",
        issuer=ISSUER,
        audience=AUDIENCE,
        keys=keys,
        max_lifetime=LIFETIME,
        leeway=10.0,
        clock=time.time,
    )


def policy_text(rules: int, *, audited: bool = False) -> str:
    """Write a policy of so many rules, the last of which allows the benchmark's calls.

    All but the last are about the same method and another caller, or about other methods, in equal
    parts: those that an index finds and those that it does not.
    """
    others = [
        {
            "name": f"rule-{number}",
            "source": {"roles": [f"role-{number}"]},
            "request": {"paths": [UNARY if number % 2 else f"/benchmark.Other/Method{number}"]},
        }
        for number in range(rules - 1)
    ]
    ours = {
        "name": "benchmark",
        "source": {"roles": [ROLE]},
        "request": {"paths": [UNARY, STREAM]},
    }
    policy: dict[str, Any] = {"name": "benchmark", "allow_rules": [*others, ours]}
    if audited:
        policy["audit_logging_options"] = {
            "audit_condition": "ON_ALLOW",
            "audit_loggers": [{"name": "stdout_logger"}],
        }
    return json.dumps(policy)


class _Seen:
    """Recognises stand-ins for tokens, ``Seen TOKEN`` with a serial number at its end.

    Signing and verifying 100,000 tokens takes half a minute per server. The measured code runs
    after a token was verified, so these need no signature; the guard caches them like tokens.
    """

    name = "seen"
    matchers: Collection[CredentialMatcher] = (Scheme(SEEN),)

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal | None:
        assert credentials is not None
        serial = credentials.value[-SEEN_DIGITS:]
        claims = {"iss": ISSUER, "sub": f"users/{serial}", "jti": serial, "roles": [ROLE]}
        return Principal(
            subject=f"users/{serial}",
            issuer=ISSUER,
            authenticator=self.name,
            roles=frozenset({ROLE}),
            token_id=serial,
            session_id=f"session-{serial}",
            expires_at=time.time() + LIFETIME,
            thumbprint="" if peer is None else peer.thumbprint,
            claims=MappingProxyType(claims),
        )


def seen_authorization(token: str, serial: int) -> str:
    """Return the value of the stand-in with this number, as long as that of a real token."""
    return f"{SEEN} {token}{serial:0{SEEN_DIGITS}}"


def _let_in(core: Core, seen: int, folder: Path) -> None:
    """Make the guard cache so many tokens, over the client's certificate."""
    token = read_tokens(folder).good
    certificate = (folder / "client.pem").read_bytes()
    transport = {
        "transport_security_type": [b"ssl"],
        "ssl_tls_version": [b"TLSv1.3"],
        "x509_pem_cert": [certificate],
    }
    for serial in range(seen):
        metadata = (
            ("user-agent", "benchmark"),
            ("authorization", seen_authorization(token, serial)),
        )
        core.admit(Call(UNARY, metadata, transport))
