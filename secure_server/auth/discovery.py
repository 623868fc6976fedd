"""Where an issuer keeps its keys (OpenID Connect Discovery 1.0, section 4; RFC 8414)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from secure_base.reloading import Reloaded, Reloads, signature
from secure_server import logs
from secure_server.auth.bulkhead import Bulkhead
from secure_server.auth.cache_epoch import CacheEpoch
from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.fetch import Fetcher, FetchError
from secure_server.auth.key_sets import parse_key_set, read_key_set
from secure_server.auth.key_source import KeySource
from secure_server.auth.keys import ALGORITHMS, KeySet, VerificationKey

WELL_KNOWN = "/.well-known/openid-configuration"


def key_set_url(fetcher: Fetcher, issuer: str) -> str:
    """Return the ``jwks_uri`` that the issuer publishes.

    Raises ``AuthenticatorError`` where its document cannot be fetched, or is another issuer's.
    """
    url = issuer.rstrip("/") + WELL_KNOWN
    try:
        document = json.loads(fetcher.get(url))
    except FetchError as error:
        raise AuthenticatorError(str(error)) from None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise AuthenticatorError(f"{url}: not a JSON object.")
    if document.get("issuer") != issuer:
        raise AuthenticatorError(
            f"{url}: the issuer there is {str(document.get('issuer'))[:200]!a}, not {issuer!a}. "
            "Both must be the same to the letter."
        )
    location = document.get("jwks_uri")
    if not isinstance(location, str):
        raise AuthenticatorError(f"{url}: there is no jwks_uri.")
    return location


def fetching(
    fetcher: Fetcher, location: Callable[[], str], algorithms: Sequence[str]
) -> Callable[[KeySet | None], KeySet]:
    """Return a function that fetches the key set from the URL that ``location`` returns."""
    told: list[str] = []

    def load(_last: KeySet | None) -> KeySet:
        url = location()
        try:
            text = fetcher.get(url)
        except FetchError as error:
            raise AuthenticatorError(str(error)) from None
        keys, skipped = parse_key_set(text, url, algorithms)
        if skipped != told:
            told[:] = skipped
            for reason in skipped:
                logs.logger(__name__).warning("a key is skipped", url=url, reason=reason)
        return keys

    return load


def follow_key_file(
    path: Path,
    issuer: str,
    *,
    reloads: Reloads,
    bulkhead: Bulkhead,
    cache_epoch: CacheEpoch,
    algorithms: Sequence[str] = ALGORITHMS,
) -> KeySource[VerificationKey]:
    """Read an issuer's key set from a file, reloaded when it changes. Raises ``KeySetError``."""
    keys: Reloaded[KeySet] = Reloaded(
        f"keys {issuer}",
        lambda _: read_key_set(path, algorithms),
        errors=(AuthenticatorError,),
        version=lambda: signature([path]),
        describe=key_names,
    )
    return KeySource(
        keys, name=issuer, bulkhead=bulkhead, cache_epoch=cache_epoch, close=reloads.follow(keys)
    )


def key_names(keys: KeySet) -> Mapping[str, object]:
    """Return the fields that the log gets about a key set."""
    return {"names": sorted(keys)}
