"""The guard in front of a servicer that is not ours, on either stack."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio

from secure_server.auth import Authenticator, Authenticators, NothingRevoked
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.authz import Policy
from secure_server.guard import (
    AuditEvent,
    Core,
    GuardInterceptor,
    Peers,
    RequestTimeouts,
    StreamPool,
)
from secure_server.guard.adapters.asyncio import AioGuardInterceptor
from secure_server.guard.callbacks import Callbacks
from secure_server.guard.streams.watch import StreamWatch
from secure_server.guard.watchdog import Watchdog
from secure_server.tokens.key_file import KeyFile
from secure_tls.authority import Authority, Issued
from secure_tls.peer import parse_peer
from secure_tls.trust import Trust
from support.forge import Forge
from support.probe import KINDS, STYLES

POLICY = """{"name": "probe", "allow_rules": [
  {"name": "admins", "source": {"roles": ["admin"]}, "request": {"paths": ["/probe.Probe/*"]}},
  {"name": "everybody", "request": {"paths": ["/probe.Open/*"]}}
]}"""

_THREADS = 16


@dataclasses.dataclass
class Answered:
    code: grpc.StatusCode
    details: str
    responses: list[bytes]
    trailers: dict[str, Any]


class Stack(Protocol):
    """One of grpcio's two kinds of server, with the guard's interceptor for it."""

    guard: Any
    watchdog: Watchdog
    open_streams: int

    def serve(self, interceptors: list[Any], add: Callable[[Any], None], tls: Any) -> int: ...

    def close(self) -> None: ...


class Threaded:
    def __init__(
        self, core: Core, streams: int, patience: float, ended: Any, clock: Callable[[], float]
    ) -> None:
        self._streams = StreamPool(streams)
        self._patience = RequestTimeouts(patience, threads=_THREADS)
        self._watch = StreamWatch(core, clock)
        self._pool = ThreadPoolExecutor(_THREADS)
        self.callbacks = Callbacks()
        self.watchdog = Watchdog(self.callbacks)
        self.guard = GuardInterceptor(
            core,
            self._streams.group(),
            self._patience,
            self._watch,
            ended,
            callbacks=self.callbacks,
            watchdog=self.watchdog,
        )

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

    def close(self) -> None:
        self.server.stop(0).wait()
        self._patience.close()
        self.watchdog.close()
        self._watch.close()
        self._streams.close()
        self._pool.shutdown()
        self.callbacks.close(1.0)


class EventLoop:
    """An event loop in a thread, and what it complained of."""

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
    def __init__(
        self, core: Core, streams: int, patience: float, ended: Any, clock: Callable[[], float]
    ) -> None:
        self._streams = streams
        self._watch = StreamWatch(core, clock)
        self.callbacks = Callbacks()
        self.watchdog = Watchdog(self.callbacks)
        self.guard = AioGuardInterceptor(
            core,
            watch=self._watch,
            streams=streams,
            threads=_THREADS,
            call_ended=ended,
            callbacks=self.callbacks,
            watchdog=self.watchdog,
            message_timeout=patience,
        )
        self._loop = event_loop()

    @property
    def open_streams(self) -> int:
        return self._streams - self.guard._free._value

    def serve(self, interceptors: list[Any], add: Callable[[Any], None], tls: Any) -> int:
        async def start() -> int:
            options = [("grpc.so_reuseport", 0)]
            self.server = grpc.aio.server(interceptors=interceptors, options=options)
            add(self.server)
            port: int = self.server.add_secure_port("127.0.0.1:0", tls)
            await self.server.start()
            return port

        return self._loop.run(start())  # type: ignore[no-any-return]

    def close(self) -> None:
        self._loop.run(self.server.stop(0))
        self.guard.close()
        self.watchdog.close()
        self._watch.close()
        self.callbacks.close(1.0)
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
        patience: float = 10.0,
        clock: Callable[[], float] = time.time,
        minimum_tls: str = "1.3",
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
        self.core = Core(
            peers=Peers(
                trust=Trust(
                    (self.authority.certificate,), trust_domains=frozenset({"example.org"})
                ),
                minimum_tls=minimum_tls,
            ),
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
            revocations=revocations or NothingRevoked(),
            policy=Policy.parse(policy),
            audit=self.events.append,
            clock=clock,
        )
        self.stack: Stack = (Asyncio if self.is_asyncio else Threaded)(
            self.core, streams, patience, lambda *ended: self.ended.append(ended), clock
        )
        leaf = self.authority.issue_server("server", ["localhost"], [ip_address("127.0.0.1")])
        tls = grpc.ssl_server_credentials(
            [(leaf.private_key_pem, leaf.certificate_pem)],
            self.authority.certificate_pem,
            require_client_auth=True,
        )
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

        self.port = self.stack.serve([*outer, self.stack.guard, *inner], add, tls)

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
    """Make one call of a kind and say what came of it."""
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
    """Requests of a caller who says nothing until the block is left."""
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
