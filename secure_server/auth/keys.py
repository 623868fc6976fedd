"""Public keys that verify signatures, as one immutable set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

_CURVE_OF = MappingProxyType({"ES256": ec.SECP256R1, "ES384": ec.SECP384R1})


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key together with the only algorithm it may verify (RFC 8725, section 3.1)."""

    key_id: str
    algorithm: str
    public_key: ec.EllipticCurvePublicKey

    def __post_init__(self) -> None:
        curve = _CURVE_OF.get(self.algorithm)
        if curve is None:
            raise ValueError(f"{self.algorithm!r} is none of {', '.join(_CURVE_OF)}.")
        if not isinstance(getattr(self.public_key, "curve", None), curve):
            raise ValueError(  # noqa: TRY004 - a key of the wrong curve is a value
                f"Key {self.key_id!r} is not one for {self.algorithm}."
            )

    def verifies(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether the signature over the JWS signing input is this key's."""
        return bool(_ALGORITHMS[self.algorithm].verify(signing_input, self.public_key, signature))


_ALGORITHMS: Mapping[str, Any] = {name: jwt.get_algorithm_by_name(name) for name in _CURVE_OF}

KeySet = Mapping[str, VerificationKey]
"""Keys by their ``kid``. Nobody changes one in place: whoever rotates keys hands out another."""
