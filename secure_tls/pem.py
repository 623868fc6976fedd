"""Reading certificates and keys from files, with errors that name the file."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from secure_tls.errors import TLSFileError
from secure_tls.keys import PrivateKey, is_servable

if TYPE_CHECKING:
    from pathlib import Path

# What cryptography raises, at once or at first use, for a malformed certificate.
# TypeError: a name whose attribute is a bit string, found by fuzzing.
MALFORMED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read(path: Path) -> bytes:
    """The bytes of a file. Raises ``TLSFileError``: ``missing`` or ``unreadable``."""
    data, _ = _read(path)
    return data


def read_secret(path: Path, *, allow_readable: bool) -> bytes:
    """The bytes of a private key's file.

    Raises ``TLSFileError``: as ``read``, and ``key_permissions`` where group or others have any
    permission on the file, unless ``allow_readable``.
    """
    data, mode = _read(path)
    if mode & _OTHERS and not allow_readable:
        raise TLSFileError(
            "key_permissions",
            f"{path} is a private key open to group or others (mode {mode:04o}): "
            f"run chmod 600 {path}.",
            path,
        )
    return data


def _read(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            # The mode of the opened file: a moment later the name may be another's.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            return file.read(), mode
    except FileNotFoundError:
        raise TLSFileError(
            "missing", f"{path} does not exist: check the path, or create it.", path
        ) from None
    except OSError as error:
        raise TLSFileError(
            "unreadable", f"{path} cannot be read: {error.strerror}.", path
        ) from error


def load_certificates(data: bytes, path: Path) -> tuple[x509.Certificate, ...]:
    """All certificates of a PEM file, at least one; raises ``TLSFileError``: ``certificate``."""
    try:
        certificates = tuple(x509.load_pem_x509_certificates(data))
        for certificate in certificates:
            # Parsed lazily by cryptography: read everything here, so that errors are raised here.
            _ = certificate.extensions
            _ = certificate.public_key(), certificate.subject, certificate.issuer
    except MALFORMED as error:
        raise TLSFileError(
            "certificate",
            f"{path} holds no readable PEM certificate: it is empty, truncated or of another "
            "format.",
            path,
        ) from error
    return certificates


def load_private_key(data: bytes, path: Path) -> PrivateKey:
    """The private key of a PEM file.

    Raises ``TLSFileError``: ``key`` where it cannot be read, ``key_encrypted``, and ``key_type``
    where gRPC cannot serve it.
    """
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise TLSFileError(
            "key_encrypted",
            f"{path} is encrypted, and there is no way to enter its password here: store it "
            "unencrypted, readable by its owner only.",
            path,
        ) from None
    except MALFORMED:
        # Without the cause: a parser's complaint could quote what it read.
        raise TLSFileError(
            "key",
            f"{path} holds no readable PEM private key: it is empty, truncated or of another "
            "format.",
            path,
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or not is_servable(
        key.public_key()
    ):
        raise key_type_error(path)
    return key


def key_type_error(path: Path) -> TLSFileError:
    """The error for a key that gRPC's TLS stack cannot serve."""
    return TLSFileError(
        "key_type",
        f"{path} has a key that gRPC cannot serve: use ECDSA P-256, P-384 or P-521, or RSA of at "
        "least 2048 bits.",
        path,
    )


def encode(certificate: x509.Certificate) -> bytes:
    """The certificate in PEM (RFC 7468)."""
    return certificate.public_bytes(Encoding.PEM)


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether the certificate is an authority's (RFC 5280, section 4.2.1.9)."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return value.ca


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether this authority signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return is_ca(authority)


def serial_text(serial: int) -> str:
    """A serial number in hexadecimal, whole bytes of it, as OpenSSL prints it."""
    digits = f"{serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)
