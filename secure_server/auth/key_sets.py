"""Public keys out of a JSON Web Key Set (RFC 7517)."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jwt

from secure_server.auth.keys import KeySet, VerificationKey


class KeySetError(Exception):
    """A key set cannot be used; the message names the file."""


def read_key_set(path: Path) -> KeySet:
    """Read the keys that verify signatures.

    Every key must have a ``kid`` of its own, be one for ES256 or ES384, and be meant for
    signatures. Raises ``KeySetError``.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        jwks = document["keys"]
        keys = [_key(jwk) for jwk in jwks]
    except OSError as error:
        raise KeySetError(f"{path}: cannot read the key set: {error.strerror}.") from None
    except (ValueError, TypeError, KeyError, jwt.InvalidKeyError) as error:
        raise KeySetError(
            f"{path}: not a JSON Web Key Set of EC signature keys ({error})."
        ) from None
    key_set = {key.key_id: key for key in keys}
    if len(key_set) != len(keys) or not keys:
        raise KeySetError(f"{path}: there must be keys, each with a `kid` of its own.")
    return MappingProxyType(key_set)


def _key(jwk: dict[str, Any]) -> VerificationKey:
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        raise ValueError("a key is not meant for signatures")
    if "d" in jwk:
        raise ValueError("a key is private: nobody but its issuer may have it")
    key_id, algorithm = jwk.get("kid"), jwk.get("alg")
    if not isinstance(key_id, str) or algorithm not in {"ES256", "ES384"}:
        raise ValueError("a key has no `kid`, or its `alg` is neither ES256 nor ES384")
    return VerificationKey(key_id, algorithm, jwt.get_algorithm_by_name(algorithm).from_jwk(jwk))
