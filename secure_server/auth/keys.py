"""Public keys that verify signatures, as one immutable set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")
"""The accepted algorithms (RFC 7518, section 3.1; RFC 8037); an RSA key without ``alg`` gets the
first that fits. None uses a shared secret: a verifier could then sign."""

_CURVE_OF: Mapping[str, type[ec.EllipticCurve]] = MappingProxyType(
    {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
)
_RSA_BITS = range(2048, 8193)  # RFC 7518, section 3.3; above, a check costs as much as an attack
_VERIFIERS: Mapping[str, Any] = {name: jwt.get_algorithm_by_name(name) for name in ALGORITHMS}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key together with the only algorithm it may verify (RFC 8725, section 3.1).

    Raises ``ValueError`` for a key that is of another type than the algorithm's, or weak.
    """

    key_id: str
    algorithm: str
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"{self.algorithm!r} is none of {', '.join(ALGORITHMS)}.")
        if not fits(self.algorithm, self.public_key):
            raise ValueError(f"Key {self.key_id!r} is not one for {self.algorithm}.")
        if isinstance(self.public_key, rsa.RSAPublicKey):
            _check_strength(self.key_id, self.public_key)

    def verifies(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether this key made the signature over the JWS signing input."""
        return bool(_VERIFIERS[self.algorithm].verify(signing_input, self.public_key, signature))


KeySet = Mapping[str, VerificationKey]
"""Keys by their ``kid``. Never changed in place: a rotation replaces the whole set."""

FindKey = Callable[[str], VerificationKey | None]
"""Finds a key by its ``kid``. It may fetch keys first; where they cannot be fetched, it raises
``AuthenticatorUnavailable``."""


def fits(algorithm: str, public_key: object) -> bool:
    """Whether a key is of the type, and on the curve, of an algorithm of ``ALGORITHMS``."""
    if algorithm in _CURVE_OF:
        return isinstance(getattr(public_key, "curve", None), _CURVE_OF[algorithm])
    kind = ed25519.Ed25519PublicKey if algorithm == "EdDSA" else rsa.RSAPublicKey
    return isinstance(public_key, kind)


def _check_strength(key_id: str, key: rsa.RSAPublicKey) -> None:
    numbers = key.public_numbers()
    if key.key_size not in _RSA_BITS:
        raise ValueError(
            f"Key {key_id!r} has {key.key_size} bits; RSA keys have {_RSA_BITS[0]} to "
            f"{_RSA_BITS[-1]}."
        )
    if numbers.e < 65537:  # small exponents make forgery easy where padding is checked badly
        raise ValueError(f"Key {key_id!r} has the public exponent {numbers.e}, less than 65537.")
    if _is_roca(numbers.n):
        raise ValueError(f"Key {key_id!r} is of a kind that can be factored (CVE-2017-15361).")


def _is_roca(modulus: int) -> bool:
    """Whether a modulus looks like those of Infineon's library: modulo each small prime it is a
    power of 65537. One in 2^27 other moduli is, too (Nemec et al., "The Return of Coppersmith's
    Attack", CCS 2017, section 3.2).
    """
    return all(modulus % prime in powers for prime, powers in _ROCA.items())


def _powers(prime: int) -> frozenset[int]:
    powers, power = set(), 1
    while power not in powers:
        powers.add(power)
        power = power * 65537 % prime
    return frozenset(powers)


# Where 65537 generates every residue the test says nothing, and costs nothing either.
_PRIMES: tuple[int, ...] = (
    3,
    5,
    7,
    11,
    13,
    17,
    19,
    23,
    29,
    31,
    37,
    41,
    43,
    47,
    53,
    59,
    61,
    67,
    71,
    73,
    79,
    83,
    89,
)
_PRIMES += (97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167)
_ROCA = {prime: _powers(prime) for prime in _PRIMES}
