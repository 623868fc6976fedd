"""The whole guard, ready to be put in front of a server on either stack."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from secure_server.audit.loggers import Loggers
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.revocations import NothingRevoked, Revocations
from secure_server.authz import Policy
from secure_server.config import read_guard_config
from secure_server.guard.adapters.asyncio import AioGuardInterceptor
from secure_server.guard.adapters.threads import GuardInterceptor
from secure_server.guard.callbacks import Callbacks
from secure_server.guard.certificates import Certificates
from secure_server.guard.core import Core
from secure_server.guard.parts import open_parts
from secure_server.guard.peers import Peers
from secure_server.guard.policy_file import PolicyFile
from secure_server.guard.refusal_log import AuditCallback, AuditEvent, log_refusal
from secure_server.guard.status import CallEnded
from secure_server.guard.streams.pool import StreamPool
from secure_server.guard.streams.watch import StreamWatch
from secure_server.guard.thread_pool import ThreadPool
from secure_server.guard.timeouts import RequestTimeouts
from secure_server.guard.watchdog import Watchdog
from secure_server.limits import MESSAGE_TIMEOUT, Limits, channel_arguments

_LIMITS = Limits()

_CALLBACKS = 1.0
"""Seconds in which the callbacks of calls that have ended must have run when a guard is closed."""


class Guard:
    """Decides about every call: who is on the wire, who is calling, whether they may.

    A class because it holds what one server needs together: the certificates it serves with, the
    caches, and the threads of its streams. ``close`` it when the server has stopped.
    """

    def __init__(
        self,
        *,
        tls: Certificates,
        policy: Policy | PolicyFile,
        authenticators: Authenticators,
        limits: Limits = _LIMITS,
        revocations: Revocations | None = None,
        audit: AuditCallback = log_refusal,
        call_ended: CallEnded | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Put the parts together; ``guard.parts`` opens those that a configuration describes.

        A policy that comes from a file is followed as the file changes, its audit loggers with it,
        and closed with the guard, as are the authenticators; of another one, the audit options
        stand for nothing but what ``audit`` is told. ``call_ended`` is told method and status of
        every call.
        """
        self._policy_file = policy if isinstance(policy, PolicyFile) else None
        if isinstance(policy, PolicyFile):
            audit, policy = _telling(policy.loggers, audit), policy.policy
        self.limits = limits
        self._clock = clock
        self._call_ended: CallEnded = call_ended or (lambda _method, _code: None)
        self.certificates = tls
        peers = Peers(trust=tls.trust, minimum_tls=tls.minimum_version)
        self.certificates.on_trust(lambda trust: setattr(peers, "trust", trust))
        self.core = Core(
            peers=peers,
            authenticators=authenticators,
            revocations=revocations or NothingRevoked(),
            policy=policy,
            audit=audit,
            clock=clock,
        )
        self._authenticators = authenticators
        self.watch = StreamWatch(self.core, clock)
        self.streams = StreamPool(limits.stream_threads)
        self._patience = RequestTimeouts(MESSAGE_TIMEOUT, threads=limits.door_threads)
        self._callbacks = Callbacks()
        self.watchdog = Watchdog(self._callbacks)
        self._aio: list[AioGuardInterceptor] = []
        self.reloads = authenticators.reloads
        self.reloads.follow(self.certificates)
        if self._policy_file is not None:
            self._policy_file.subscribe(lambda policy: setattr(self.core, "policy", policy))
            self.reloads.follow(self._policy_file)
        self.reloads.start()

    @classmethod
    def from_config(cls, path: str | os.PathLike[str]) -> Guard:
        """Guard a server of your own by a file like ``secure-server.toml``.

        It needs ``[policy] file``, and for tokens of the identity service ``[tokens] key_set``, its
        public keys; keys that only ``secure-server`` has a use for are refused. What this would
        refuse says ``secure-server check --own-servicer``. Raises ``ConfigError``,
        ``AuthenticatorError``, ``PolicyError``, ``secure_server.audit.AuditLoggerError`` and
        ``secure_tls.TLSFileError``.
        """
        parts = open_parts(read_guard_config(Path(path)), clock=time.time)
        return cls(
            tls=parts.tls,
            policy=parts.policy,
            authenticators=parts.authenticators,
            limits=parts.limits,
        )

    def thread_pool(self) -> ThreadPoolExecutor:
        """For ``grpc.server``: a new pool of ``[server] door_threads``, one of them started.

        Where the system starts no more threads it goes on with those that it has; with another
        pool, the ``RuntimeError`` ends grpcio's serving thread. Shut it down as any other.
        """
        return ThreadPool(self.limits.door_threads, name="door")

    def interceptor(self) -> GuardInterceptor:
        """For ``grpc.server(interceptors=[...])``. It must be the first of them."""
        return GuardInterceptor(
            self.core,
            self.streams.group(),
            self._patience,
            self.watch,
            self._call_ended,
            callbacks=self._callbacks,
            watchdog=self.watchdog,
        )

    def aio_interceptor(self) -> AioGuardInterceptor:
        """For ``grpc.aio.server(interceptors=[...])``. It must be the first of them."""
        interceptor = AioGuardInterceptor(
            self.core,
            watch=self.watch,
            streams=self.limits.stream_threads,
            threads=self.limits.door_threads,
            call_ended=self._call_ended,
            callbacks=self._callbacks,
            watchdog=self.watchdog,
        )
        self._aio.append(interceptor)
        return interceptor

    def server_credentials(self) -> grpc.ServerCredentials:
        """For ``server.add_secure_port``: mutual TLS, a client certificate required.

        They are those of the files as they are now, and stay so: gRPC's own way of changing them
        can be crashed from outside (grpc/grpc#36693). ``Generations`` replaces the server.
        """
        files = self.certificates.files
        return grpc.ssl_server_credentials(
            [(files.private_key, files.certificate_chain)],
            root_certificates=self.certificates.handshake_bundle,
            require_client_auth=True,
        )

    def options(self) -> list[tuple[str, int]]:
        """For ``grpc.server(options=...)``: bounds on what one peer may cost."""
        return channel_arguments(self.limits)

    def close(self) -> None:
        """Let go of the threads. Calls that are in flight end as they would.

        Audit loggers get five seconds at the most to write what they still have, and callbacks of
        servicers one second to return.
        """
        self.reloads.close()
        self.watchdog.close()
        self.watch.close()
        if self._policy_file is not None:
            self._policy_file.close()
        self._authenticators.close()
        self._patience.close()
        self.streams.close()
        for interceptor in self._aio:
            interceptor.close()
        self._callbacks.close(_CALLBACKS)


def _telling(loggers: Loggers, audit: AuditCallback) -> AuditCallback:
    def tell(event: AuditEvent) -> None:
        loggers.write(event)
        audit(event)

    return tell
