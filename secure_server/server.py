"""Build and run one server: the identity service behind the guard, on the threaded stack."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from importlib import resources

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from secure_api.tokens.v1 import token_service_pb2
from secure_api.tokens.v1.token_service_pb2_grpc import add_TokenServiceServicer_to_server
from secure_api.users.v1 import user_service_pb2
from secure_api.users.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server
from secure_server import logs
from secure_server.audit.loggers import FLUSH
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.local_issuer import MAX_TOKEN_LIFETIME, LocalIssuerAuthenticator
from secure_server.auth.plugin import LocalIssuer
from secure_server.authz import Policy
from secure_server.config import Config, ConfigError
from secure_server.guard import AuditEvent, Guard, log_refusal
from secure_server.guard.certificates import Certificates
from secure_server.guard.chain import build_chain, grants
from secure_server.guard.guard import telling
from secure_server.guard.listener.rotation import Built, ListenError, ListenerRotation
from secure_server.guard.policy_file import PolicyFile
from secure_server.guard.watchdog import Watchdog
from secure_server.http import HTTPServer, json_page
from secure_server.limits import channel_arguments
from secure_server.services.cursors import Cursors
from secure_server.services.health import Health
from secure_server.services.token_service import TokenService
from secure_server.services.user_service import UserService
from secure_server.store.database import Database
from secure_server.store.settings import secret_key
from secure_server.telemetry import Metrics
from secure_server.tokens.issuer import Issuer
from secure_server.tokens.key_file import KeyFile
from secure_server.tokens.key_ring import KeyRing
from secure_server.tokens.key_store import KeyStore
from secure_server.tokens.revocations import Revocations
from secure_server.tokens.session_endings import SessionEndings
from secure_server.tokens.sessions import Sessions
from secure_server.tokens.sweeping import Sweeper
from secure_server.users import Accounts, Changes, Logins, Passwords

_SERVICES = (
    user_service_pb2.DESCRIPTOR.services_by_name["UserService"],
    token_service_pb2.DESCRIPTOR.services_by_name["TokenService"],
)

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_MOMENT = 1.0
"""Seconds for audit events to be written where calls in flight took the whole grace."""


class ServerError(Exception):
    """The server cannot start; the message says why and what to do."""


class Server:
    """One server, from a configuration to its graceful end.

    Building it opens the store and binds the port; ``start`` serves. Use ``stop`` in any case: it
    also lets go of what an unstarted server holds.
    """

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        """Raises ``ServerError`` and the typed errors of the rooms for what cannot be used."""
        self._config = config
        self._clock = clock
        self._log = logs.logger("secure_server")
        self._metrics = Metrics()
        self._started = threading.Event()
        self._stopping = threading.Event()
        self._undo: list[Callable[[], object]] = []
        try:
            self._build()
        except BaseException:
            self._let_go()
            raise

    def _build(self) -> None:
        config = self._config
        policy = self._open_policy()
        tokens = config.tokens
        keys = KeyStore(
            KeyFile(tokens.signing_key, tokens.signing_key_passphrase_file),
            lifetime=tokens.signing_key_lifetime,
            publishing=tokens.signing_key_publishing,
            clock=self._clock,
        )
        database = self._database = Database.open(config.store.url)
        self._undo.append(database.close)
        revocations = Revocations(
            database,
            issuer=tokens.issuer,
            clock=self._clock,
            max_staleness=config.store.max_feed_staleness,
        )
        revocations.start()
        self._revocations = revocations
        self._undo.append(revocations.close)
        own = LocalIssuer(tokens.issuer, tokens.audience, keys.find)
        verifier = LocalIssuerAuthenticator("jwt", own, self._clock)
        chain = build_chain(config, clock=self._clock, find_key=own.keys)
        self._undo.append(chain.close)
        chain.reloads.follow(keys)
        keys.start(withdrawn=chain.cache_epoch.advance)
        self._undo.append(keys.close)
        self._certificates = Certificates(config.tls, self._clock)
        self._guard = Guard(
            tls=self._certificates,
            policy=policy,
            authenticators=chain,
            limits=config.server.limits,
            revocations=revocations,
            audit=self._audit
            if self._policy_file is None
            else telling(self._policy_file.loggers, self._audit),
            call_ended=self._metrics.call_ended,
            clock=self._clock,
        )
        self._undo.append(self._guard.close)
        self._metrics.gauge(
            "secure_grpc_open_streams", "Streams open now.", lambda: len(self._guard.streams)
        )
        self._metrics.gauge(
            "secure_grpc_certificate_expiry_time_seconds",
            "When the server certificate ends, in seconds since the epoch.",
            lambda: self._certificates.expires_at,
        )

        reloads = self._guard.reloads
        self._metrics.counters(
            "secure_grpc_reload_failures",
            "How often a source could not be reloaded, since the start.",
            "source",
            lambda: {source: one.failures for source, one in reloads.statuses.items()},
        )
        self._metrics.gauges(
            "secure_grpc_reload_success_time_seconds",
            "When a source was loaded last, in seconds since the epoch; 0 for never.",
            "source",
            lambda: {source: one.succeeded_at for source, one in reloads.statuses.items()},
        )
        self._metrics.gauge(
            "secure_grpc_server_generation",
            "How many certificates were served with, since the start.",
            lambda: self._generations.count,
        )
        self._metrics.counters(
            "secure_grpc_audit_dropped",
            "Audit events that a logger did not write, and lines of the log.",
            "logger",
            self._lost,
        )
        self._metrics.gauge(
            "secure_grpc_serving_thread_stalled_seconds",
            "For how long the serving thread has not moved; 0 unless that is 5 seconds or more.",
            lambda: self._guard.watchdog.stalled_seconds,
        )
        self._metrics.counter(
            "secure_grpc_serving_thread_stalls",
            "How often the serving thread has not moved for 5 seconds, since the start.",
            lambda: self._guard.watchdog.stalls,
        )
        self._door = self._guard.thread_pool()
        self._undo.append(lambda: self._door.shutdown(wait=False))
        self._add_servicers(database, keys.ring, verifier, chain, revocations)
        try:
            self._generations = ListenerRotation(
                self._build_generation,
                self._guard.server_credentials,
                config.server.listen,
                retire=config.server.retire,
                grace=config.server.grace,
                forget=self._guard.streams.forget,
            )
        except ListenError as error:
            raise ServerError(str(error)) from None
        self.address = self._generations.address
        self._certificates.on_serving(self._generations.rotate)
        # From here on: nothing that is told of a change misses one.
        chain.reloads.follow(self._certificates)
        if self._policy_file is not None:
            chain.reloads.follow(self._policy_file)
        if config.http.listen is not None:
            self._serve_http(config.http.listen, keys.ring)

    def _open_policy(self) -> Policy | PolicyFile:
        path = self._config.policy.file
        self._policy_file = None
        if path is None:
            policy = shipped_policy()
            check_every_method_has_a_rule(policy)
            return policy
        file = self._policy_file = PolicyFile(path, accept=check_every_method_has_a_rule)
        self._undo.append(file.close)
        return file

    def _lost(self) -> dict[str, int]:
        file = self._policy_file
        lost = {} if file is None else file.loggers.dropped.counts
        return {"log": logs.lost_lines(), **lost}

    def _build_generation(self) -> Built:
        """Build a server of the servicers and pools that all of them share."""
        interceptor = self._guard.interceptor()
        # Two at once: one that was replaced keeps its connections for a while.
        options = channel_arguments(self._config.server.limits, servers=2)
        server = grpc.server(self._door, interceptors=[interceptor], options=options)
        for add in self._servicers:
            add(server)
        return Built(server, interceptor.streams)

    def _add_servicers(
        self,
        database: Database,
        key_ring: Callable[[], KeyRing],
        verifier: LocalIssuerAuthenticator,
        chain: Authenticators,
        revocations: Revocations,
    ) -> None:
        tokens = self._config.tokens
        sweeper = Sweeper(database, issuer=tokens.issuer, clock=self._clock)
        sweeper.start()
        self._undo.append(sweeper.close)
        endings = SessionEndings(
            database,
            issuer=tokens.issuer,
            clock=self._clock,
            # Not the configured one: it may have been longer when a token was issued.
            access_token_lifetime=MAX_TOKEN_LIFETIME,
            sweep=sweeper.wake,
        )
        sessions = Sessions(
            database,
            endings,
            issuer=tokens.issuer,
            clock=self._clock,
            idle_lifetime=tokens.session_idle_lifetime,
            absolute_lifetime=tokens.session_lifetime,
        )
        passwords = Passwords()
        self._undo.append(passwords.close)
        accounts = Accounts(database, passwords, clock=self._clock, end_sessions=endings.end_all)
        logins = Logins(database, passwords, clock=self._clock, end_sessions=endings.end_all)
        accounts.adopt_requests(tokens.issuer)
        changes = Changes(database, clock=self._clock)
        changes.start()
        self._undo.append(changes.close)
        changes.prune()
        self._changes = changes
        cursors = Cursors(secret_key(database, "cursors"))
        users = UserService(
            accounts,
            logins,
            changes,
            cursors,
            issuer=tokens.issuer,
            stopping=self._stopping,
        )
        token_service = TokenService(
            accounts=accounts,
            logins=logins,
            sessions=sessions,
            endings=endings,
            issuer=Issuer(
                name=tokens.issuer,
                audience=tokens.audience,
                lifetime=tokens.access_token_lifetime,
                key_ring=key_ring,
                clock=self._clock,
                issued_until=revocations.issued_until,
            ),
            key_ring=key_ring,
            verifier=verifier,
            authenticators=chain,
            revocations=revocations,
            workloads=grants(self._config),
            cursors=cursors,
            clock=self._clock,
        )
        names = [service.full_name for service in _SERVICES]
        self._health = Health(names)
        self._servicers: list[Callable[[grpc.Server], object]] = [
            lambda server: add_UserServiceServicer_to_server(users, server),
            lambda server: add_TokenServiceServicer_to_server(token_service, server),
            lambda server: health_pb2_grpc.add_HealthServicer_to_server(self._health, server),
        ]
        if self._config.server.reflection:
            reflected = [*names, _HEALTH, reflection.SERVICE_NAME]
            self._servicers.append(
                lambda server: reflection.enable_server_reflection(reflected, server)
            )

    def _serve_http(self, listen: str, key_ring: Callable[[], KeyRing]) -> None:
        try:
            http = HTTPServer(
                listen,
                {
                    "/healthz": self._healthz,
                    "/livez": self._livez,
                    "/readyz": self._readyz,
                    "/metrics": lambda: (
                        "200 OK",
                        "text/plain; version=0.0.4; charset=utf-8",
                        self._metrics.exposition(),
                    ),
                    "/.well-known/jwks.json": lambda: json_page({"keys": key_ring().public_jwks()}),
                },
            )
        except OSError as error:
            raise ServerError(
                f"Cannot listen on {listen} for HTTP ({error.strerror}). Choose another address "
                "with [http] listen."
            ) from None
        self._undo.append(http.stop)
        self._http = http
        self.http_address = http.address

    def _healthz(self) -> tuple[str, str, bytes]:
        if self._stopping.is_set() or not self._started.is_set():
            return json_page({"status": "NOT_SERVING"}, "503 Service Unavailable")
        return json_page({"status": "SERVING", "warnings": self._warnings()})

    def _warnings(self) -> list[str]:
        return [*self._certificates.warnings, *self._guard.reloads.warnings]

    def _livez(self) -> tuple[str, str, bytes]:
        """Ask nothing but the watchdog: a restart mends no store and no certificate."""
        watchdog = self._guard.watchdog
        if stalled := watchdog.stalled_seconds:
            reasons = [_stands(watchdog)]
            return json_page(
                {"status": "STALLED", "stalled_seconds": stalled, "reasons": reasons},
                "503 Service Unavailable",
            )
        return json_page({"status": "ALIVE"})

    def _readyz(self) -> tuple[str, str, bytes]:
        reasons = []
        if not self._started.is_set():
            reasons.append("The server is starting; it answers calls in a moment.")
        if self._stopping.is_set():
            reasons.append("The server is stopping: it takes no new calls.")
        if not self._revocations.is_current:
            reasons.append(
                "What was revoked is not known any more: the store could not be read for longer "
                "than [store] max_feed_staleness. Calls with tokens are refused until it can."
            )
        if not self._database.is_in_place:
            reasons.append(
                "The file of the store is gone, or another is in its place: what is written now "
                "is lost with the next start. Put the file back, or stop the server, restore the "
                "store and start it again."
            )
        if self._guard.watchdog.stalled_seconds:
            reasons.append(_stands(self._guard.watchdog))
        if reasons:
            return json_page({"status": "NOT_READY", "reasons": reasons}, "503 Service Unavailable")
        return json_page({"status": "READY", "warnings": self._warnings()})

    def _audit(self, event: AuditEvent) -> None:
        self._metrics.count_audit(event)
        log_refusal(event)

    def start(self) -> None:
        """Begin to serve. Raises ``StoreError``."""
        if self._config.http.listen is not None:
            self._http.start()
        self._revocations.refresh()  # the first call knows what was revoked while this was built
        self._generations.start()
        self._started.set()
        self._log.info("serving", address=self.address, http=getattr(self, "http_address", None))

    def stop(self) -> None:
        """Take no new call, let those in flight finish within the grace, and let go of everything.

        Streams are told as ``ListenerRotation.stop`` says.
        """
        if not self._stopping.is_set():
            over = time.monotonic() + self._config.server.grace
            self._stopping.set()
            self._health.enter_shutdown()
            self._changes.close()
            self._generations.stop()
            if self._policy_file is not None:
                self._policy_file.close(min(FLUSH, max(_MOMENT, over - time.monotonic())))
            self._log.info("stopped", address=self.address)
        self._let_go()

    def _let_go(self) -> None:
        while self._undo:
            self._undo.pop()()


def _stands(watchdog: Watchdog) -> str:
    if watchdog.has_ended:
        return (
            "The serving thread has ended: no call is answered. Restart the server; its log has "
            "the exception that ended the thread."
        )
    return (
        f"The serving thread has not moved for {watchdog.stalled_seconds:.0f} seconds: no call is "
        "answered. Restart the server; its log has the stack of every thread."
    )


def shipped_policy() -> Policy:
    """Return the policy that comes with the server."""
    text = resources.files("secure_server").joinpath("policy.json").read_text("utf-8")
    return Policy.parse(text, origin="the shipped policy.json")


def check_every_method_has_a_rule(policy: Policy) -> None:
    """Refuse a policy that forgets a method of ours: it would be denied to everybody, silently.

    Raises ``ConfigError``.
    """
    methods = [
        f"/{service.full_name}/{method.name}" for service in _SERVICES for method in service.methods
    ]
    if forgotten := [method for method in methods if not policy.names(method)]:
        raise ConfigError(
            f"The policy {policy.name!r} has no rule for {', '.join(forgotten)}. Add one; a deny "
            "rule says that it is meant so."
        )
