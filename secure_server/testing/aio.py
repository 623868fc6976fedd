"""A guarded server on grpcio's asyncio stack, for the length of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Literal

import grpc.aio

from secure_server.auth.authenticators import Authenticator
from secure_server.guard.guard import Guard
from secure_server.guard.refusal_log import AuditEvent
from secure_server.testing.guarded import CHANNEL_OPTIONS, GRACE, HOST, THREADS, Guarded, guarding
from secure_server.testing.issuer import Issuer
from secure_tls.authority import Authority, Issued


class AioGuardedServer(Guarded):
    __doc__ = Guarded.__doc__

    def __init__(
        self,
        address: str,
        authority: Authority,
        issuer: Issuer,
        audit: list[AuditEvent],
        guard: Guard,
    ) -> None:
        super().__init__(address, authority, issuer, audit, guard)
        self._channels: list[grpc.aio.Channel] = []

    def channel(
        self,
        client: str | Issued = "alice",
        *,
        subject: str | None = None,
        roles: Iterable[str] = (),
        scopes: Iterable[str] = (),
        token: str | Literal[False] | None = None,
    ) -> grpc.aio.Channel:
        """Open a channel of the running loop, as ``GuardedServer.channel`` does.

        A test of a refused stream should send nothing: a ``grpc.aio`` call that is still
        writing when the refusal comes may end with INTERNAL ("Internal error from Core") instead.
        """
        credentials = self._credentials(client, subject, roles, scopes, token)
        channel = grpc.aio.secure_channel(self.address, credentials, CHANNEL_OPTIONS)
        self._channels.append(channel)
        return channel

    async def _close(self) -> None:
        for channel in self._channels:
            await channel.close()


@asynccontextmanager
async def aio_guarded_server(
    add_servicers: Callable[[grpc.aio.Server], object],
    *,
    policy: str | Mapping[str, Any],
    authenticators: Sequence[Authenticator | Mapping[str, Any]] = (),
    authority: Authority | None = None,
    issuer: Issuer | None = None,
) -> AsyncIterator[AioGuardedServer]:
    """Do as ``guarded_server`` does, with a ``grpc.aio.Server`` on the running loop.

    Servicers may be coroutines, async generators or plain functions, which run on threads.

    >>> import asyncio
    >>> import grpc
    >>> from secure_server import current_principal
    >>> from secure_server.testing import aio_guarded_server
    >>> async def hello(request, context):
    ...     return b"Hello, " + current_principal().subject.encode()
    >>> def add_servicers(server):
    ...     methods = {"Hello": grpc.unary_unary_rpc_method_handler(hello)}
    ...     server.add_registered_method_handlers("greet.Greeter", methods)
    >>> policy = '{"name": "greet", "allow_rules": [{"name": "all", "source": {"roles": ["*"]}}]}'
    >>> async def main():
    ...     async with aio_guarded_server(add_servicers, policy=policy) as server:
    ...         channel = server.channel("alice", roles=["greeter"])
    ...         return await channel.unary_unary("/greet.Greeter/Hello")(b"", timeout=10)
    >>> asyncio.run(main())
    b'Hello, alice'
    """
    authority = authority or Authority.create("example.org")
    issuer = issuer or Issuer()
    audit: list[AuditEvent] = []
    with guarding(authority, issuer, policy, authenticators, audit) as guard:
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="plain")
        server = grpc.aio.server(
            pool, interceptors=[guard.aio_interceptor()], options=guard.options()
        )
        add_servicers(server)
        port = server.add_secure_port(f"{HOST}:0", guard.server_credentials())
        await server.start()
        guarded = AioGuardedServer(f"{HOST}:{port}", authority, issuer, audit, guard)
        try:
            yield guarded
        finally:
            await guarded._close()  # noqa: SLF001 - not for users
            await server.stop(GRACE)
            pool.shutdown(wait=False)
