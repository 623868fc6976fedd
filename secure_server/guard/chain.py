"""The chain of authenticators that a configuration describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secure_base.reloading import Reloads
from secure_server import logs
from secure_server.auth.api_keys import API_KEYS
from secure_server.auth.authenticators import Authenticator, Authenticators, close_all
from secure_server.auth.bulkhead import Bulkhead
from secure_server.auth.cache_epoch import CacheEpoch
from secure_server.auth.discovery import follow_key_file
from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.key_source import KeySource
from secure_server.auth.keys import FindKey, VerificationKey
from secure_server.auth.plugin import AuthenticatorContext, Grant, LocalIssuer, build
from secure_server.config import Config


def build_chain(
    config: Config,
    *,
    clock: Callable[[], float],
    find_key: FindKey | None = None,
    others: Sequence[Authenticator] = (),
) -> Authenticators:
    """Build the authenticators of ``[[authenticators]]``, and append ``others``.

    ``find_key`` finds the keys of our own tokens; without it they come from ``[tokens] key_set``.
    Raises ``AuthenticatorError``.
    """
    cache_epoch = CacheEpoch()
    reloads = Reloads(logs.log_reload)
    # Calls that wait for an issuer may block half of the threads; the rest serve other calls.
    bulkhead = Bulkhead(config.server.door_threads // 2)
    members: list[Authenticator] = []
    keys: KeySource[VerificationKey] | None = None
    try:
        if find_key is None and config.tokens.key_set is not None:
            keys = follow_key_file(
                config.tokens.key_set,
                config.tokens.issuer,
                reloads=reloads,
                bulkhead=bulkhead,
                cache_epoch=cache_epoch,
            )
            find_key = keys.find
        own = None
        if find_key is not None:
            own = LocalIssuer(config.tokens.issuer, config.tokens.audience, find_key)
        workloads = grants(config)
        _check_issuers(config, own)
        for section in config.authenticators:
            context = AuthenticatorContext(
                section.name, clock, bulkhead, cache_epoch, own, workloads, reloads
            )
            members.append(build(section.kind, section.settings, context))
        closing = [keys] if keys else ()
        return Authenticators([*members, *others], cache_epoch, reloads, closing=closing)
    except BaseException:
        close_all((*members, keys))
        raise


def _check_issuers(config: Config, own: LocalIssuer | None) -> None:
    """Refuse two sources with one issuer: a principal of one would equal one of the other.

    An external issuer may have both tokens and an introspection endpoint. Our own issuer has its
    tokens only, and API keys and certificates each have an issuer of their own.
    """
    ours = "[tokens]"
    tls = config.tls
    sources = {
        f"spiffe://{domain}": "the certificates of that trust domain"
        for domain in (*tls.trust_domains, *tls.trust_bundles)
    }
    if own is not None:
        sources[own.issuer] = ours
    for section in sorted(config.authenticators, key=lambda section: section.kind is API_KEYS):
        issuer = getattr(section.settings, "issuer", None)
        if not isinstance(issuer, str):
            continue
        other = sources.get(issuer)
        if other is not None and (other == ours or section.kind is API_KEYS):
            raise AuthenticatorError(
                f"The authenticator {section.name!r} has the issuer of {other}, {issuer!r}: its "
                "callers would be taken for that one's. Give it an issuer of its own."
            )
        if (near := next((one for one in sources if _are_nested(one, issuer)), None)) is not None:
            raise AuthenticatorError(
                f"The authenticator {section.name!r} has the issuer {issuer!r}, {sources[near]} "
                f"has {near!r}: policies name callers ISSUER/SUBJECT, so one could give a "
                "subject that reads as the other's caller. Trust one of them alone."
            )
        sources[issuer] = f"the authenticator {section.name!r}"


def _are_nested(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return shorter != longer and longer.startswith(f"{shorter}/")


def grants(config: Config) -> dict[str, Grant]:
    """Return what ``[[workloads]]`` grants, by SPIFFE ID."""
    return {
        workload.spiffe_id: Grant(frozenset(workload.roles), frozenset(workload.scopes))
        for workload in config.workloads
    }
