"""Certificates and lists that no library builds: taken apart, changed, and signed again."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

SEQUENCE, INTEGER, BITS = 0x30, 0x02, 0x03
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def element(tag: int, contents: bytes) -> bytes:
    """One element of DER (X.690, section 8.1)."""
    size = len(contents)
    length = size.to_bytes(max(1, (size.bit_length() + 7) // 8))
    if size >= 0x80:
        length = bytes([0x80 | len(length)]) + length
    return bytes([tag]) + length + contents


def split(der: bytes) -> tuple[bytes, bytes, bytes]:
    """The first element, its contents, and what follows it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start])
    end = start + length
    return der[:end], der[start:end], der[end:]


def signed(body: bytes, private_key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate or a list with these contents (RFC 5280, sections 4.1 and 5.1)."""
    tbs = element(SEQUENCE, body)
    signature = private_key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return element(SEQUENCE, tbs + _ECDSA_WITH_SHA256 + element(BITS, b"\x00" + signature))
