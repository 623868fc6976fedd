"""The identity service: users and tokens over the store, health, and reflection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from secure_api.tokens.v1 import token_service_pb2
from secure_api.tokens.v1.token_service_pb2_grpc import add_TokenServiceServicer_to_server
from secure_api.users.v1 import user_service_pb2
from secure_api.users.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.local_issuer import MAX_TOKEN_LIFETIME, LocalIssuerAuthenticator
from secure_server.auth.plugin import LocalIssuer
from secure_server.config import Config
from secure_server.guard.chain import grants
from secure_server.services.cursors import Cursors
from secure_server.services.health import Health
from secure_server.services.token_service import TokenService
from secure_server.services.user_service import UserService
from secure_server.store.database import Database
from secure_server.store.settings import secret_key
from secure_server.tokens.issuer import Issuer
from secure_server.tokens.key_store import KeyStore
from secure_server.tokens.revocations import Revocations
from secure_server.tokens.session_endings import SessionEndings
from secure_server.tokens.sessions import Sessions
from secure_server.tokens.sweeping import Sweeper
from secure_server.users import Accounts, Changes, Logins, Passwords

_NAMES = [
    service.full_name
    for file in (user_service_pb2.DESCRIPTOR, token_service_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
]
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

AddServicer = Callable[[grpc.Server], object]


@dataclass(frozen=True, slots=True)
class Servicers:
    """What the servers of one port share. ``changes`` and ``health`` are told of the end."""

    add: Sequence[AddServicer]
    changes: Changes
    health: Health


def build_servicers(
    config: Config,
    *,
    database: Database,
    keys: KeyStore,
    authenticators: Authenticators,
    revocations: Revocations,
    stopping: threading.Event,
    clock: Callable[[], float],
    undo: ExitStack,
) -> Servicers:
    """Build them, over parts that are open. ``undo`` ends their threads. Raises ``StoreError``."""
    tokens = config.tokens
    sweeper = Sweeper(database, issuer=tokens.issuer, clock=clock)
    sweeper.start()
    undo.callback(sweeper.close)
    endings = SessionEndings(
        database,
        issuer=tokens.issuer,
        clock=clock,
        # Not the configured one: it may have been longer when a token was issued.
        access_token_lifetime=MAX_TOKEN_LIFETIME,
        sweep=sweeper.wake,
    )
    sessions = Sessions(
        database,
        endings,
        issuer=tokens.issuer,
        clock=clock,
        idle_lifetime=tokens.session_idle_lifetime,
        absolute_lifetime=tokens.session_lifetime,
    )
    passwords = Passwords()
    undo.callback(passwords.close)
    accounts = Accounts(database, passwords, clock=clock, end_sessions=endings.end_all)
    logins = Logins(database, passwords, clock=clock, end_sessions=endings.end_all)
    accounts.adopt_requests(tokens.issuer)
    changes = Changes(database, clock=clock)
    changes.start()
    undo.callback(changes.close)
    changes.prune()
    cursors = Cursors(secret_key(database, "cursors"))
    users = UserService(
        accounts,
        logins,
        changes,
        cursors,
        issuer=tokens.issuer,
        stopping=stopping,
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
            key_ring=keys.ring,
            clock=clock,
            issued_until=revocations.issued_until,
        ),
        key_ring=keys.ring,
        verifier=LocalIssuerAuthenticator(
            "jwt", LocalIssuer(tokens.issuer, tokens.audience, keys.find), clock
        ),
        authenticators=authenticators,
        revocations=revocations,
        workloads=grants(config),
        cursors=cursors,
        clock=clock,
    )
    health = Health(_NAMES)
    add: list[AddServicer] = [
        lambda server: add_UserServiceServicer_to_server(users, server),
        lambda server: add_TokenServiceServicer_to_server(token_service, server),
        lambda server: health_pb2_grpc.add_HealthServicer_to_server(health, server),
    ]
    if config.server.reflection:
        reflected = [*_NAMES, _HEALTH, reflection.SERVICE_NAME]
        add.append(lambda server: reflection.enable_server_reflection(reflected, server))
    return Servicers(add, changes, health)
