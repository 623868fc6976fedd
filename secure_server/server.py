"""Build and run one server: the identity service behind the guard, on the threaded stack."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from secure_api.tokens.v1 import token_service_pb2
from secure_api.tokens.v1.token_service_pb2_grpc import add_TokenServiceServicer_to_server
from secure_api.users.v1 import user_service_pb2
from secure_api.users.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server
from secure_server import logs
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.auth.own import OwnAuthenticator
from secure_server.auth.plugin import OwnTokens
from secure_server.authz import Policy
from secure_server.config import Config
from secure_server.guard import AuditEvent, Guard, log_audit
from secure_server.guard.chain import build_chain, grants
from secure_server.guard.guard import read_policy
from secure_server.http import HTTPServer, json_page
from secure_server.services.cursors import Cursors
from secure_server.services.token_service import TokenService
from secure_server.services.user_service import UserService
from secure_server.store.database import Database
from secure_server.store.settings import secret_key
from secure_server.telemetry import Metrics
from secure_server.tokens.issuer import Issuer
from secure_server.tokens.key_ring import KeyRing
from secure_server.tokens.revocations import Revocations
from secure_server.tokens.sessions import Sessions
from secure_server.users import Accounts, Changes, Passwords

_SERVICES = (
    user_service_pb2.DESCRIPTOR.services_by_name["UserService"],
    token_service_pb2.DESCRIPTOR.services_by_name["TokenService"],
)


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
        self._stopping = threading.Event()
        self._undo: list[Callable[[], object]] = []
        try:
            self._build()
        except BaseException:
            self._let_go()
            raise

    def _build(self) -> None:
        config = self._config
        policy = (
            shipped_policy() if config.policy.file is None else read_policy(config.policy.file)
        )
        key_ring = KeyRing.open(config.tokens.signing_key)
        database = Database.open(config.store.url)
        self._undo.append(database.close)
        revocations = Revocations(database, clock=self._clock)
        revocations.start()
        self._undo.append(revocations.close)
        own = OwnTokens(config.tokens.issuer, config.tokens.audience, key_ring.keys.get)
        verifier = OwnAuthenticator("jwt", own, self._clock)
        chain = build_chain(config, clock=self._clock, find_key=own.keys)
        self._undo.append(chain.close)
        self._guard = Guard(
            config,
            authenticators=chain,
            policy=policy,
            revocations=revocations,
            audit=self._audit,
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
            lambda: self._guard.certificate_expiry,
        )

        door = ThreadPoolExecutor(config.server.door_threads, thread_name_prefix="door")
        self._undo.append(lambda: door.shutdown(wait=False))
        self._grpc = grpc.server(
            door, interceptors=[self._guard.interceptor()], options=self._guard.options()
        )
        self._register(database, key_ring, verifier, revocations)
        check_every_method_has_a_rule(policy)
        self._bind()
        if config.http.listen is not None:
            self._serve_http(config.http.listen, key_ring)

    def _register(
        self,
        database: Database,
        key_ring: KeyRing,
        verifier: JWTAuthenticator,
        revocations: Revocations,
    ) -> None:
        tokens = self._config.tokens
        sessions = Sessions(
            database,
            clock=self._clock,
            access_token_lifetime=tokens.access_token_lifetime,
            idle_lifetime=tokens.session_idle_lifetime,
            absolute_lifetime=tokens.session_lifetime,
        )
        passwords = Passwords()
        self._undo.append(passwords.close)
        accounts = Accounts(database, passwords, clock=self._clock, end_sessions=sessions.end_all)
        changes = Changes(database, clock=self._clock)
        changes.start()
        self._undo.append(changes.close)
        changes.prune()
        self._changes = changes
        add_UserServiceServicer_to_server(
            UserService(
                accounts,
                changes,
                Cursors(secret_key(database, "cursors")),
                issuer=tokens.issuer,
                sessions_ended=revocations.refresh,
                stopping=self._stopping,
            ),
            self._grpc,
        )
        add_TokenServiceServicer_to_server(
            TokenService(
                accounts=accounts,
                sessions=sessions,
                issuer=Issuer(
                    name=tokens.issuer,
                    audience=tokens.audience,
                    lifetime=tokens.access_token_lifetime,
                    key_ring=lambda: key_ring,
                    clock=self._clock,
                ),
                key_ring=key_ring,
                verifier=verifier,
                revocations=revocations,
                workloads=grants(self._config),
            ),
            self._grpc,
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = [service.full_name for service in _SERVICES]
        for name in names:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        if self._config.server.reflection:
            reflection.enable_server_reflection(
                [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._grpc
            )

    def _bind(self) -> None:
        listen = self._config.server.listen
        try:
            port = self._grpc.add_secure_port(listen, self._guard.server_credentials())
        except RuntimeError:
            port = 0
        if not port:
            raise ServerError(
                f"Cannot listen on {listen}: the port is taken, or the address is not one of this "
                "machine's. Choose another with [server] listen."
            )
        self.address = f"{listen.rpartition(':')[0]}:{port}"

    def _serve_http(self, listen: str, key_ring: KeyRing) -> None:
        try:
            http = HTTPServer(
                listen,
                {
                    "/healthz": self._healthz,
                    "/metrics": lambda: (
                        "200 OK",
                        "text/plain; version=0.0.4; charset=utf-8",
                        self._metrics.exposition(),
                    ),
                    "/.well-known/jwks.json": lambda: json_page({"keys": key_ring.public_jwks()}),
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
        if self._stopping.is_set():
            return json_page({"status": "NOT_SERVING"}, "503 Service Unavailable")
        return json_page({"status": "SERVING"})

    def _audit(self, event: AuditEvent) -> None:
        self._metrics.count_audit(event)
        log_audit(event)

    def start(self) -> None:
        """Begin to serve."""
        self._grpc.start()
        if self._config.http.listen is not None:
            self._http.start()
        self._log.info("serving", address=self.address, http=getattr(self, "http_address", None))

    def stop(self) -> None:
        """Take no new call, let those in flight finish within the grace, and let go of everything.

        Streams that could go on for ever are told at once, others after a third of the grace:
        UNAVAILABLE, with reason SERVER_ROTATING.
        """
        if not self._stopping.is_set():
            self._stopping.set()
            grace = self._config.server.grace
            self._health.enter_graceful_shutdown()
            self._guard.streams.end_unattended()
            self._changes.close()
            stopped = self._grpc.stop(grace)
            if not stopped.wait(grace / 3):
                self._guard.streams.end_all()
            stopped.wait()
            self._log.info("stopped", address=self.address)
        self._let_go()

    def _let_go(self) -> None:
        while self._undo:
            self._undo.pop()()


def shipped_policy() -> Policy:
    """Return the policy that comes with the server."""
    text = resources.files("secure_server").joinpath("policy.json").read_text("utf-8")
    return Policy.parse(text, origin="the shipped policy.json")


def check_every_method_has_a_rule(policy: Policy) -> None:
    """Refuse a policy that forgets a method of ours: it would be denied to everybody, silently.

    Raises ``ServerError``.
    """
    methods = [
        f"/{service.full_name}/{method.name}" for service in _SERVICES for method in service.methods
    ]
    if forgotten := [method for method in methods if not policy.names(method)]:
        raise ServerError(
            f"The policy {policy.name!r} has no rule for {', '.join(forgotten)}. Add one; a deny "
            "rule says that it is meant so."
        )
