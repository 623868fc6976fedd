"""A guarded server on grpcio's threaded stack, for the length of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import grpc

from secure_server.auth.authenticators import Authenticator
from secure_server.guard.guard import Guard
from secure_server.guard.refusal_log import AuditEvent
from secure_server.testing.guarded import CHANNEL_OPTIONS, GRACE, HOST, Guarded, guarding
from secure_server.testing.issuer import Issuer
from secure_tls.authority import Authority, Issued


class GuardedServer(Guarded):
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
        self._channels: list[grpc.Channel] = []

    def channel(
        self,
        client: str | Issued = "alice",
        *,
        subject: str | None = None,
        roles: Iterable[str] = (),
        scopes: Iterable[str] = (),
        token: str | Literal[False] | None = None,
    ) -> grpc.Channel:
        """Open a channel with a connection of its own; it is closed with the server.

        It presents the certificate of ``client``, a name or what ``authority`` issued, and sends a
        good token with every call: for ``subject``, by default the client's name (``alice`` for an
        issued certificate), with ``roles`` and ``scopes``, bound to the certificate, good for an
        hour. A ``token`` is sent instead of it; False sends none, so that calls can set their own
        ``authorization`` metadata.

        Raises ``ValueError`` for a ``token`` beside ``subject``, ``roles`` or ``scopes``, which
        would have no effect, and ``secure_tls.AuthorityError`` for an invalid client name.
        """
        credentials = self._credentials(client, subject, roles, scopes, token)
        channel = grpc.secure_channel(self.address, credentials, CHANNEL_OPTIONS)
        self._channels.append(channel)
        return channel

    def _close(self) -> None:
        for channel in self._channels:
            channel.close()


@contextmanager
def guarded_server(
    add_servicers: Callable[[grpc.Server], object],
    *,
    policy: str | Mapping[str, Any],
    authenticators: Sequence[Authenticator | Mapping[str, Any]] = (),
    authority: Authority | None = None,
    issuer: Issuer | None = None,
) -> Iterator[GuardedServer]:
    """Run a server of your servicers behind the guard, over mutual TLS, on a free port of loopback.

    ``add_servicers`` gets the ``grpc.Server`` before it starts. ``policy`` is one of gRFC A43, as
    JSON text or as a dictionary; what it does not allow is refused, as in production.
    ``authenticators`` are asked beside the one of ``issuer``; each is an authenticator or a table
    of ``[[authenticators]]``, whose ``type`` may also be an ``AuthenticatorType``. Without
    ``authority`` and ``issuer`` there is a new one of each, for the trust domain ``example.org``.
    The guard reads the issuer's clock, which must stay within the 90 days of the certificates.

    When the block ends, open calls are cancelled; handlers that do not notice are left running.

    Raises ``secure_server.PolicyError``, ``secure_server.AuthenticatorError``, and ``ValueError``
    for settings that are wrong.
    """
    authority = authority or Authority.create("example.org")
    issuer = issuer or Issuer()
    audit: list[AuditEvent] = []
    with guarding(authority, issuer, policy, authenticators, audit) as guard:
        pool = guard.thread_pool()
        server = grpc.server(pool, interceptors=[guard.interceptor()], options=guard.options())
        add_servicers(server)
        port = server.add_secure_port(f"{HOST}:0", guard.server_credentials())
        server.start()
        guarded = GuardedServer(f"{HOST}:{port}", authority, issuer, audit, guard)
        try:
            yield guarded
        finally:
            guarded._close()  # noqa: SLF001 - not for users
            server.stop(GRACE).wait()
            pool.shutdown(wait=False)
