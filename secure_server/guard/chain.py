"""The chain of authenticators that a configuration describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secure_server.auth.authenticators import Authenticator, Authenticators
from secure_server.auth.bulkhead import Bulkhead
from secure_server.auth.discovery import reading
from secure_server.auth.generation import Generation
from secure_server.auth.key_source import FILE, KeySource
from secure_server.auth.keys import FindKey, VerificationKey
from secure_server.auth.plugin import AuthenticatorContext, Grant, OwnTokens, build
from secure_server.config import Config


def build_chain(
    config: Config,
    *,
    clock: Callable[[], float],
    find_key: FindKey | None = None,
    others: Sequence[Authenticator] = (),
) -> Authenticators:
    """Build the authenticators of ``[[authenticators]]``, to which ``others`` are added.

    ``find_key`` has the keys of our own tokens; without it they are those of ``[tokens] key_set``.
    Raises ``AuthenticatorError``.
    """
    generation = Generation()
    # Calls that wait for an issuer may take half of the threads; the others are everybody else's.
    bulkhead = Bulkhead(config.server.door_threads // 2)
    members: list[Authenticator] = []
    keys: KeySource[VerificationKey] | None = None
    try:
        if find_key is None and config.tokens.key_set is not None:
            keys = KeySource(
                reading(config.tokens.key_set),
                name=config.tokens.issuer,
                pace=FILE,
                bulkhead=bulkhead,
                generation=generation,
            )
            keys.load_now()
            keys.start()
            find_key = keys.find
        own = None
        if find_key is not None:
            own = OwnTokens(config.tokens.issuer, config.tokens.audience, find_key)
        workloads = grants(config)
        for section in config.authenticators:
            context = AuthenticatorContext(
                section.name, clock, bulkhead, generation, own, workloads
            )
            members.append(build(section.kind, section.settings, context))
        return Authenticators([*members, *others], generation, closing=[keys] if keys else ())
    except BaseException:
        for one in (*members, keys):
            getattr(one, "close", bool)()
        raise


def grants(config: Config) -> dict[str, Grant]:
    """Return what ``[[workloads]]`` grants, by SPIFFE ID."""
    return {
        workload.spiffe_id: Grant(frozenset(workload.roles), frozenset(workload.scopes))
        for workload in config.workloads
    }
