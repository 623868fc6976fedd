"""Where an issuer keeps its keys (OpenID Connect Discovery 1.0, section 4; RFC 8414)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from secure_server import logs
from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.fetch import Fetcher, FetchError
from secure_server.auth.key_sets import parse_key_set, read_key_set
from secure_server.auth.keys import ALGORITHMS, KeySet

WELL_KNOWN = "/.well-known/openid-configuration"


def key_set_url(fetcher: Fetcher, issuer: str) -> str:
    """Return the ``jwks_uri`` that the issuer publishes.

    Raises ``AuthenticatorError`` where its document is not to be had, or is another issuer's.
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
) -> Callable[[], KeySet]:
    """Return what fetches the key set from wherever ``location`` says."""
    told: list[str] = []

    def load() -> KeySet:
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


def reading(path: Path, algorithms: Sequence[str] = ALGORITHMS) -> Callable[[], KeySet]:
    """Return what reads the key set from a file, again only where that has changed."""
    known: tuple[object, KeySet] | None = None

    def load() -> KeySet:
        nonlocal known
        try:
            status = path.stat()
        except OSError:
            return read_key_set(path, algorithms)  # which says why not
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if known is None or known[0] != version:
            known = (version, read_key_set(path, algorithms))
        return known[1]

    return load
