"""The whole guard, for a server on either stack."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc

from secure_base.reloading.watched import Static, Watched
from secure_server.audit.loggers import Loggers
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.revocations import NothingRevoked, Revocations
from secure_server.authz import Policy
from secure_server.config import read_guard_config
from secure_server.guard.adapters.asyncio import AioGuardInterceptor
from secure_server.guard.adapters.threads import GuardInterceptor
from secure_server.guard.callbacks import Callbacks
from secure_server.guard.core import Core
from secure_server.guard.parts import open_parts
from secure_server.guard.peers import Peers
from secure_server.guard.refusal_log import AuditCallback, log_refusal
from secure_server.guard.status import CallEnded
from secure_server.guard.streams.pool import StreamPool
from secure_server.guard.streams.watch import StreamWatch
from secure_server.guard.thread_pool import ThreadPool
from secure_server.guard.timeouts import RequestTimeouts
from secure_server.guard.tls_set import TLSSet
from secure_server.guard.watchdog import Watchdog
from secure_server.limits import Limits, channel_arguments

_CALLBACKS = 1.0
"""Seconds that the callbacks of ended calls get when a guard is closed."""


class Guard:
    """Decides about every call: who is on the wire, who is calling, whether they may.

    A class because it holds the certificates, caches and stream threads of one server. ``close``
    it when the server has stopped.
    """

    def __init__(
        self,
        *,
        tls: TLSSet | Watched[TLSSet],
        policy: Policy | Watched[Policy],
        authenticators: Authenticators,
        limits: Limits | None = None,
        revocations: Revocations | None = None,
        audit: AuditCallback = log_refusal,
        call_ended: CallEnded = lambda _method, _code: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Guard by these values; of a ``Watched`` one, every call uses the current value.

        The guard closes ``authenticators``; their owner closes all other arguments. Files of
        authenticators are reloaded from here on; ``reloads`` must be told to follow those of
        ``tls`` and ``policy``, where they have some.
        ``audit`` is called with every refusal, and with allowed calls if the policy's audit
        condition says so; ``PolicyFile`` calls the loggers that a policy names. ``call_ended``
        gets method and status of every call. ``clock`` gives seconds since the epoch.
        """
        limits = limits or Limits()
        revocations = revocations or NothingRevoked()
        self._limits = limits
        self._tls: Watched[TLSSet] = Static(tls) if isinstance(tls, TLSSet) else tls
        watched_policy = Static(policy) if isinstance(policy, Policy) else policy
        self._call_ended = call_ended
        self.core = Core(
            peers=Peers(self._tls),
            authenticators=authenticators,
            revocations=revocations,
            policy=watched_policy,
            audit=audit,
            clock=clock,
        )
        self.watch = StreamWatch(self.core, clock)
        self.streams = StreamPool(limits.stream_threads)
        self._timeouts = RequestTimeouts(limits.message_timeout, threads=limits.door_threads)
        self._callbacks = Callbacks()
        self.watchdog = Watchdog(self._callbacks)
        self.audit_loggers: Loggers | None = None
        """Those that the policy names, where the guard was made ``from_config``."""
        # In reverse order of closing.
        self._on_close = ExitStack()
        self._on_close.callback(self._callbacks.close, _CALLBACKS)
        self._on_close.callback(self.streams.close)
        self._on_close.callback(self._timeouts.close)
        self._on_close.callback(authenticators.close)
        self.reloads = authenticators.reloads
        self._on_close.callback(self.watch.close)
        self._on_close.callback(self.watchdog.close)
        self._on_close.callback(self.reloads.close)
        try:
            for source in (self._tls, watched_policy):
                self._on_close.callback(source.subscribe(self.watch.notice))
            self._on_close.callback(revocations.subscribe(self.watch.notice))
            authenticators.cache_epoch.subscribe(self.watch.notice)
            # Last: the files of the authenticators are followed however the guard was made.
            self.reloads.start()
        except BaseException:
            self._on_close.close()
            raise

    @classmethod
    def from_config(cls, path: str | os.PathLike[str]) -> Guard:
        """Guard a server of your own by a file like ``secure-server.toml``.

        It needs ``[policy] file``, and for tokens of the identity service ``[tokens] key_set``, its
        public keys; keys that only ``secure-server`` has a use for are refused. ``secure-server
        check --own-servicer`` says what this would. Raises ``ConfigError``, ``AuthenticatorError``,
        ``PolicyError``, ``secure_server.audit.AuditLoggerError`` and ``secure_tls.TLSFileError``.
        """
        parts = open_parts(read_guard_config(Path(path)), clock=time.time)
        with ExitStack() as undo:
            if parts.policy_file is not None:
                undo.callback(parts.policy_file.close)
            guard = cls(
                tls=parts.tls,
                policy=parts.policy,
                authenticators=parts.authenticators,
                limits=parts.limits,
                audit=parts.telling(log_refusal),
            )
            guard._on_close.push(undo.pop_all())
        if parts.policy_file is not None:
            guard.audit_loggers = parts.policy_file.loggers
        parts.follow()
        return guard

    def thread_pool(self) -> ThreadPoolExecutor:
        """For ``grpc.server``: a new pool of ``[server] door_threads``, one of them started.

        If the system starts no more threads, it keeps running with those that it has; with another
        pool, the ``RuntimeError`` ends grpcio's serving thread. Shut it down like any other.
        """
        return ThreadPool(self._limits.door_threads, name="door")

    def interceptor(self) -> GuardInterceptor:
        """For ``grpc.server(interceptors=[...])``. It must be the first of them."""
        return GuardInterceptor(
            self.core,
            self.streams.group(),
            self._timeouts,
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
            limits=self._limits,
            call_ended=self._call_ended,
            callbacks=self._callbacks,
            watchdog=self.watchdog,
        )
        self._on_close.callback(interceptor.close)
        return interceptor

    def server_credentials(self) -> grpc.ServerCredentials:
        """For ``server.add_secure_port``: mutual TLS, a client certificate required.

        They are the current ones, and never change: a client can crash gRPC's own way of changing
        them (grpc/grpc#36693). ``ListenerRotation`` replaces the server instead.
        """
        tls = self._tls.value
        return grpc.ssl_server_credentials(
            [(tls.files.private_key, tls.files.certificate_chain)],
            root_certificates=tls.handshake_bundle,
            require_client_auth=True,
        )

    def options(self) -> list[tuple[str, int]]:
        """For ``grpc.server(options=...)``: bounds on what one peer may use."""
        return channel_arguments(self._limits)

    def close(self) -> None:
        """Stop the threads. Calls in flight are not interrupted.

        Callbacks of servicers get one second to return; where the guard was made ``from_config``,
        audit loggers get five seconds to write their backlog.
        """
        self._on_close.close()
