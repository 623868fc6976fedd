"""Public keys out of a JSON Web Key Set (RFC 7517)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jwt

from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.keys import ALGORITHMS, KeySet, VerificationKey, fits

_MOST_KEYS = 100
_MAX_KEY_ID = 512


class KeySetError(AuthenticatorError):
    """A key set cannot be used; the message names its file or URL."""


def read_key_set(path: Path, algorithms: Sequence[str] = ALGORITHMS) -> KeySet:
    """Read verification keys from a file, all of which must be usable.

    Every key must have a ``kid`` of its own, be public, strong, for one of the ``algorithms`` and
    meant for signatures. Raises ``KeySetError``.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise KeySetError(f"{path}: cannot read the key set: {error.strerror}.") from None
    keys, skipped = parse_key_set(text, str(path), algorithms)
    if skipped:
        raise KeySetError(f"{path}: {skipped[0]} Take it out of the file.")
    return keys


def parse_key_set(
    text: bytes, origin: str, algorithms: Sequence[str] = ALGORITHMS
) -> tuple[KeySet, list[str]]:
    """Return the usable keys of a key set, and a sentence for each that is not.

    Unusable keys are skipped (RFC 7517, section 5): a set may hold keys for other purposes. Two
    keys with one ``kid`` are both skipped, since a token could mean either. Raises ``KeySetError``
    where the text is no key set, or none of its keys is usable.
    """
    try:
        document = json.loads(text)
        jwks = document["keys"] if isinstance(document, dict) else None
    except (ValueError, KeyError, RecursionError):
        jwks = None
    if not isinstance(jwks, list) or len(jwks) > _MOST_KEYS:
        raise KeySetError(f"{origin}: not a JSON Web Key Set of at most {_MOST_KEYS} keys.")
    ids = Counter(_key_id(jwk) for jwk in jwks)
    keys: dict[str, VerificationKey] = {}
    skipped = []
    for number, jwk in enumerate(jwks, 1):
        key_id = _key_id(jwk)
        try:
            key = _key(key_id, jwk, algorithms, is_alone=ids[key_id] == 1)
            keys[key.key_id] = key
        except ValueError as error:
            skipped.append(f"Key {number}, {(key_id or '')[:80]!a}, cannot be used: {error}")
    if not keys:
        raise KeySetError(f"{origin}: no key can be used. {' '.join(skipped)}".rstrip())
    return MappingProxyType(keys), skipped


def _key_id(jwk: object) -> str | None:
    key_id = jwk.get("kid") if isinstance(jwk, dict) else None
    return key_id if isinstance(key_id, str) and 0 < len(key_id) <= _MAX_KEY_ID else None


def _key(
    key_id: str | None, jwk: dict[str, Any], algorithms: Sequence[str], *, is_alone: bool
) -> VerificationKey:
    if key_id is None:
        raise ValueError("it has no `kid`.")
    if not is_alone:
        raise ValueError("another key has the same `kid`.")
    if jwk.get("use", "sig") != "sig":
        raise ValueError("its `use` is not sig.")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("its `key_ops` do not include verify.")
    if "d" in jwk or "k" in jwk:
        raise ValueError("it is a secret, which only its issuer may have.")
    algorithm = jwk.get("alg")
    if "alg" in jwk and algorithm not in algorithms:
        raise ValueError(f"its `alg` is none of {', '.join(algorithms)}.")
    try:
        # PyJWT reads the key by its type and curve, whatever `alg` it states.
        public_key = jwt.PyJWK({name: jwk[name] for name in jwk if name != "alg"}).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError("it is no public key that is understood.") from None
    for candidate in (algorithm,) if algorithm else algorithms:
        if fits(candidate, public_key):
            return VerificationKey(key_id, candidate, public_key)
    raise ValueError(f"it is not of the type of {algorithm or 'any algorithm that is allowed'}.")
