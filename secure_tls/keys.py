"""Private keys: which kinds gRPC can serve, and generating them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificateIssuerPrivateKeyTypes,
        PublicKeyTypes,
    )

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# NIST SP 800-131A, revision 2: the least that may be used.
_MIN_RSA_BITS = 2048
_MIN_RSA_EXPONENT = 65537  # NIST SP 800-56B, revision 2, section 6.2
# The bounds of BoringSSL, gRPC's TLS.
_MAX_RSA_BITS = 16384
_MAX_RSA_EXPONENT_BITS = 33


class KeyType(StrEnum):
    """The kinds of keys that ``generate`` makes."""

    ECDSA_P256 = "ecdsa-p256"
    RSA_3072 = "rsa-3072"

    def generate(self) -> PrivateKey:
        """Make a new key from the operating system's randomness."""
        if self is KeyType.RSA_3072:
            return rsa.generate_private_key(public_exponent=65537, key_size=3072)
        return ec.generate_private_key(ec.SECP256R1())


def generate_like(public_key: PublicKeyTypes) -> PrivateKey:
    """Make a new key of the same kind and size as this one, which ``is_servable``."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return rsa.generate_private_key(public_exponent=65537, key_size=public_key.key_size)
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    return ec.generate_private_key(public_key.curve)


def weakness(public_key: PublicKeyTypes) -> str:
    """Why a certificate with this key is refused, in a few words; empty where it is not.

    Kinds of keys that gRPC's TLS stack cannot use, such as Ed25519, are refused.
    """
    if isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size < _MIN_RSA_BITS:
            return f"RSA of {public_key.key_size} bits, fewer than {_MIN_RSA_BITS}"
        if public_key.public_numbers().e < _MIN_RSA_EXPONENT:
            return f"RSA with an exponent below {_MIN_RSA_EXPONENT}"
        return ""
    if isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(
        public_key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1
    ):
        return ""
    return f"{kind_of(public_key)} is none that gRPC can use"


def is_slow(public_key: PublicKeyTypes) -> bool:
    """Whether verifying with this key takes so long that only an attacker would use it."""
    if not isinstance(public_key, rsa.RSAPublicKey):
        return False
    exponent = public_key.public_numbers().e
    return public_key.key_size > _MAX_RSA_BITS or exponent.bit_length() > _MAX_RSA_EXPONENT_BITS


def is_servable(public_key: PublicKeyTypes) -> bool:
    """Whether gRPC can serve this key and it is strong enough."""
    return not weakness(public_key)


def kind_of(public_key: PublicKeyTypes) -> str:
    """A short name for the kind and size of a key, as ``KeyType`` gives them."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"rsa-{public_key.key_size}"
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return f"ecdsa-{public_key.curve.name.replace('secp', 'p').removesuffix('r1')}"
    return type(public_key).__name__.removesuffix("PublicKey").lower()


def same_key(one: PublicKeyTypes, other: PublicKeyTypes) -> bool:
    """Whether both are the same public key."""
    return spki(one) == spki(other)


def spki(key: PublicKeyTypes) -> bytes:
    """The key as DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7): the identity of a key."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """The key as unencrypted PKCS #8 in PEM (RFC 5958, RFC 7468): a secret."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
