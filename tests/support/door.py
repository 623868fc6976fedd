"""The guard in front of a servicer that is not ours, on either stack."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import grpc
import grpc.aio

from secure_server.auth import Authenticator, Authenticators
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.authz import Policy
from secure_server.guard import AuditEvent, Guard, TLSSet
from secure_server.limits import Limits
from secure_server.tokens.key_file import KeyFile
from secure_tls.authority import Authority, Issued
from secure_tls.peer import parse_peer
from support.forge import Forge
from support.probe import KINDS, STYLES

POLICY = """{"name": "probe", "allow_rules": [
  {"name": "admins", "source": {"roles": ["admin"]}, "request": {"paths": ["/probe.Probe/*"]}},
  {"name": "everybody", "request": {"paths": ["/probe.Open/*"]}}
]}"""

AUDITED = """{"name": "audited", "allow_rules": [{"name": "all"}],
  "audit_logging_options": {
    "audit_condition": "ON_ALLOW", "audit_loggers": [{"name": "stdout_logger"}]
  }}"""
"""Allows every call, and has an event for each."""

_THREADS = 16

T = TypeVar("T")


@dataclasses.dataclass
class Answered:
    code: grpc.StatusCode
    details: str
    responses: list[bytes]
    trailers: dict[str, Any]


class Stack(Protocol):
    """One of grpcio's two kinds of server, with the guard's interceptor for it."""

    guard: Any
    open_streams: int

    def serve(self, interceptors: list[Any], add: Callable[[Any], None], tls: Any) -> int: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Changing(Generic[T]):
    """A ``Watched`` value that a test replaces."""

    def __init__(self, value: T) -> None:
        self.value = value
        self._told: list[Callable[[T], object]] = []

    def subscribe(self, told: Callable[[T], object]) -> Callable[[], None]:
        self._told.append(told)
        return lambda: self._told.remove(told)

    def change(self, value: T) -> None:
        self.value = value
        for told in tuple(self._told):
            told(value)


class Threaded:
    def __init__(self, guard: Guard) -> None:
        self._pool = guard.thread_pool()
        self.guard = guard.interceptor()
        self._streams = guard.streams

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def serve(self, interceptors: list[Any], add: Callable[[Any], None], tls: Any) -> int:
        options = [("grpc.so_reuseport", 0)]
        self.server = grpc.server(self._pool, interceptors=interceptors, options=options)
        add(self.server)
        port: int = self.server.add_secure_port("127.0.0.1:0", tls)
        self.server.start()
        return port

    def stop(self) -> None:
        self.server.stop(0).wait()

    def close(self) -> None:
        self._pool.shutdown()


class EventLoop:
    """An event loop in a thread, and the exceptions that it reported."""

    def __init__(self) -> None:
        self.complaints: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, context: self.complaints.append(context))
        self.thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self.thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


@functools.cache
def event_loop() -> EventLoop:
    """The loop of all asyncio servers of this process: grpcio polls for one the best."""
    return EventLoop()


class Asyncio:
    def __init__(self, guard: Guard) -> None:
        self.guard = guard.aio_interceptor()
        self._places = self.guard._free._value
        self._loop = event_loop()

    @property
    def open_streams(self) -> int:
        return self._places - self.guard._free._value

    def serve(self, interceptors: list[Any], add: Callable[[Any], None], tls: Any) -> int:
        async def start() -> int:
            options = [("grpc.so_reuseport", 0)]
            self.server = grpc.aio.server(interceptors=interceptors, options=options)
            add(self.server)
            port: int = self.server.add_secure_port("127.0.0.1:0", tls)
            await self.server.start()
            return port

        return self._loop.run(start())  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._loop.run(self.server.stop(0))

    def close(self) -> None:
        complaints, self._loop.complaints[:] = self._loop.complaints[:], []
        assert complaints == [], complaints


class Door:
    """A guarded server in this process."""

    def __init__(
        self,
        root: Path,
        *,
        style: str = "threaded",
        policy: str = POLICY,
        before: tuple[Authenticator, ...] = (),
        outer: tuple[Any, ...] = (),
        inner: tuple[Any, ...] = (),
        registered: bool = False,
        more: Callable[[Any], None] = lambda _server: None,
        streams: int = 64,
        threads: int = _THREADS,
        patience: float = 10.0,
        clock: Callable[[], float] = time.time,
        minimum_tls: Literal["1.2", "1.3"] = "1.3",
        revocations: Any = None,
    ) -> None:
        """``outer`` and ``inner`` are interceptors around the guard's; with ``registered`` the
        server learns of the probe's methods one by one; ``more`` adds other servicers.
        """
        self.style = style
        self.is_asyncio = style.startswith("aio")
        self.authority = Authority.create("example.org")
        self.probe = STYLES[style]()
        self.events: list[AuditEvent] = []
        self.ended: list[tuple[str, str]] = []
        key_ring = KeyFile(root / "signing-key.pem").open(time.time())
        self.forge = Forge(
            (root / "signing-key.pem").read_bytes(), key_ring.key_id, "https://issuer", "audience"
        )
        leaf = self.authority.issue_server("server", ["localhost"], [ip_address("127.0.0.1")])
        self.tls = Changing(
            TLSSet.of_pem(
                leaf.certificate_pem,
                leaf.private_key_pem,
                self.authority.certificate_pem,
                trust_domains=["example.org"],
                minimum_version=minimum_tls,
            )
        )
        self.policy = Changing(Policy.parse(policy))
        self.guard = Guard(
            tls=self.tls,
            policy=self.policy,
            authenticators=Authenticators(
                [
                    *before,
                    JWTAuthenticator(
                        name="jwt",
                        issuer="https://issuer",
                        audience="audience",
                        keys=key_ring.keys.get,
                        max_lifetime=3600,
                        leeway=10,
                        clock=clock,
                    ),
                ]
            ),
            limits=Limits(door_threads=threads, stream_threads=streams, message_timeout=patience),
            revocations=revocations,
            audit=self.events.append,
            call_ended=lambda *ended: self.ended.append(ended),
            clock=clock,
        )
        self.core = self.guard.core
        self.stack: Stack = (Asyncio if self.is_asyncio else Threaded)(self.guard)
        self.client = self.authority.issue_client("admin")
        self.thumbprint = parse_peer(self.client.certificate_pem).thumbprint
        self._channels: list[grpc.Channel] = []

        def add(server: Any) -> None:
            more(server)
            for service in ("probe.Probe", "probe.Open") if registered else ():
                handlers = {kind: self.probe.handler(kind) for kind in KINDS}
                server.add_registered_method_handlers(service, handlers)
            if not registered:
                server.add_generic_rpc_handlers((self.probe,))

        tls_credentials = self.guard.server_credentials()
        self.port = self.stack.serve([*outer, self.stack.guard, *inner], add, tls_credentials)

    def token(self, **changes: Any) -> str:
        return self.forge.token(self.thumbprint, **changes)

    def channel(self, client: Issued | None = None) -> grpc.Channel:
        issued = client or self.client
        credentials = grpc.ssl_channel_credentials(
            self.authority.certificate_pem, issued.private_key_pem, issued.certificate_pem
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options)
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self.stack.stop()
        self.guard.close()
        self.stack.close()


@contextmanager
def open_door(root: Path, **settings: Any) -> Iterator[Door]:
    door = Door(root, **settings)
    try:
        yield door
    finally:
        door.close()


def ask(
    channel: grpc.Channel,
    kind: str,
    authorization: str | None = None,
    *,
    service: str = "probe.Probe",
    path: str | None = None,
    messages: tuple[bytes, ...] = (b"hello",),
    requests: Iterator[bytes] | None = None,
    metadata: tuple[tuple[str, Any], ...] = (),
    timeout: float = 10.0,
) -> Answered:
    """Make one call of a kind and return its outcome."""
    if authorization is not None:
        metadata = (*metadata, ("authorization", authorization))
    invoke = getattr(channel, kind)(path or f"/{service}/{kind}", None, None)
    argument: Any = requests if requests is not None else iter(messages)
    if kind.startswith("unary"):
        (argument,) = messages
    responses: list[bytes] = []
    try:
        if kind.endswith("unary"):
            response, call = invoke.with_call(argument, metadata=metadata, timeout=timeout)
            responses.append(response)
        else:
            call = invoke(argument, metadata=metadata, timeout=timeout)
            responses.extend(call)
        return Answered(call.code(), call.details(), responses, dict(call.trailing_metadata()))
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        return Answered(error.code(), error.details(), responses, trailers)


@contextmanager
def silence() -> Iterator[Iterator[bytes]]:
    """Requests of a caller who sends nothing until the block ends."""
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        over.wait()
        return
        yield b""

    try:
        yield requests()
    finally:
        over.set()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what another thread is about to do; fail when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.005)
