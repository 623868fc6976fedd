"""What the identity service is composed of, opened from a configuration."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from secure_server.app.addresses import check_addresses
from secure_server.app.servicers import Servicers, build_servicers
from secure_server.config import Config
from secure_server.guard.guard import Guard
from secure_server.guard.parts import GuardParts, open_parts
from secure_server.guard.refusal_log import AuditCallback
from secure_server.guard.status import CallEnded
from secure_server.shipped_policy import check_every_method_has_a_rule, shipped_policy
from secure_server.store.database import Database
from secure_server.tokens.key_file import KeyFile
from secure_server.tokens.key_store import KeyStore
from secure_server.tokens.revocations import Revocations


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one identity service, open."""

    guard: Guard
    parts: GuardParts
    keys: KeyStore
    database: Database
    revocations: Revocations
    servicers: Servicers


def build_service(
    config: Config,
    *,
    audit: AuditCallback,
    call_ended: CallEnded,
    stopping: threading.Event,
    clock: Callable[[], float],
    undo: ExitStack,
) -> Service:
    """Open what the configuration names; ``check_service`` looks at the same, in the same order.

    ``undo`` closes what was opened, where a later part fails as well. Raises the errors of
    ``secure_server.mistakes``.
    """
    check_addresses(config)
    tokens = config.tokens
    keys = KeyStore(
        KeyFile(tokens.signing_key, tokens.signing_key_passphrase_file),
        lifetime=tokens.signing_key_lifetime,
        publishing=tokens.signing_key_publishing,
        clock=clock,
    )
    parts = open_parts(
        config,
        clock=clock,
        policy=shipped_policy(),
        accept=check_every_method_has_a_rule,
        find_key=keys.find,
    )
    if parts.policy_file is not None:
        undo.callback(parts.policy_file.close)
    authenticators = parts.authenticators
    undo.callback(authenticators.close)
    authenticators.reloads.follow(keys)
    keys.start(withdrawn=authenticators.cache_epoch.advance)
    undo.callback(keys.close)
    database = Database.open(config.store.url)
    undo.callback(database.close)
    revocations = Revocations(
        database,
        issuer=tokens.issuer,
        clock=clock,
        max_staleness=config.store.max_feed_staleness,
    )
    revocations.start()
    undo.callback(revocations.close)
    guard = Guard(
        tls=parts.tls,
        policy=parts.policy,
        authenticators=authenticators,
        limits=parts.limits,
        revocations=revocations,
        audit=parts.telling(audit),
        call_ended=call_ended,
        clock=clock,
    )
    undo.callback(guard.close)
    servicers = build_servicers(
        config,
        database=database,
        keys=keys,
        authenticators=authenticators,
        revocations=revocations,
        stopping=stopping,
        clock=clock,
        undo=undo,
    )
    return Service(guard, parts, keys, database, revocations, servicers)
