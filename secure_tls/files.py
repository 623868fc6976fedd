"""Certificate, private key and trust bundle, read as one consistent set.

gRPC checks nothing: a wrong pair aborts the process, an expired certificate is served. So all
files are checked here first, and gRPC gets exactly the bytes that were checked.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from secure_tls import pem
from secure_tls.errors import TLSFileError
from secure_tls.keys import is_servable, same_key
from secure_tls.paths import judge_path, why_no_anchor

if TYPE_CHECKING:
    from datetime import datetime

# A private key is a few kilobytes; larger files are not searched for one.
_MAX_KEY_FILE = 65536


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """What a server presents and whom it trusts: PEM bytes for gRPC, and parsed.

    ``certificate_chain`` starts with ``leaf``. ``authorities`` are the CA certificates in
    ``ca_bundle``, at least one. The private key stays out of the ``repr``.
    """

    certificate_chain: bytes
    private_key: bytes = field(repr=False)
    ca_bundle: bytes
    leaf: x509.Certificate
    authorities: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class ClientTLSFiles:
    """What a client presents and whom it trusts; as ``TLSFiles``.

    ``certificate_chain``, ``private_key`` and ``leaf`` are None together, where the client
    presents no certificate.
    """

    certificate_chain: bytes | None
    private_key: bytes | None = field(repr=False)
    ca_bundle: bytes
    leaf: x509.Certificate | None
    authorities: tuple[x509.Certificate, ...]


def read_server_files(
    certificate: str | os.PathLike[str],
    private_key: str | os.PathLike[str],
    client_ca: str | os.PathLike[str],
    *,
    allow_readable_key: bool = False,
    now: float | None = None,
) -> TLSFiles:
    """Read and check a server's PEM files.

    ``certificate`` is the leaf, then any intermediates. ``now`` is seconds since the epoch, the
    clock by default. A private key that group or others can read is refused unless
    ``allow_readable_key``.

    Raises ``TLSFileError``, whose ``path`` is the file at fault and whose ``code`` is one of
    ``missing``, ``unreadable``, ``certificate``, ``key``, ``key_encrypted``, ``key_type``,
    ``key_permissions``, ``key_mismatch``, ``expired``, ``not_yet_valid``, ``is_ca``, ``eku`` (no
    serverAuth), ``chain`` (what follows the leaf did not issue it, or is not good now), ``no_san``
    (neither DNS name nor IP address), ``no_ca``.
    """
    moment = time.time() if now is None else now
    chain, key, leaf = _read_pair(
        Path(certificate),
        Path(private_key),
        ExtendedKeyUsageOID.SERVER_AUTH,
        allow_readable_key=allow_readable_key,
        now=moment,
    )
    check_server_names(leaf, Path(certificate))
    bundle, authorities = read_bundle(Path(client_ca), moment)
    return TLSFiles(chain, key, bundle, leaf, authorities)


def check_server_files(
    certificate: bytes, private_key: bytes, client_ca: bytes, *, now: float
) -> TLSFiles:
    """Vouch for PEM texts as ``read_server_files`` does for files; ``now`` is seconds since the
    epoch. Raises ``TLSFileError``, whose ``path`` is the name of the parameter.
    """
    name = Path("certificate")
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    leaf = _check_pair(certificate, name, (private_key, Path("private_key")), usage, now)
    check_server_names(leaf, name)
    authorities = _check_bundle(client_ca, Path("client_ca"), now)
    return TLSFiles(certificate, private_key, client_ca, leaf, authorities)


def read_client_files(
    certificate: str | os.PathLike[str] | None,
    private_key: str | os.PathLike[str] | None,
    ca: str | os.PathLike[str],
    *,
    allow_readable_key: bool = False,
    now: float | None = None,
) -> ClientTLSFiles:
    """Read and check a client's PEM files; certificate and key both, or neither.

    Raises ``TLSFileError`` as ``read_server_files`` does, with ``eku`` for a certificate without
    clientAuth, and ``half_pair`` where only one of certificate and key is given.
    """
    moment = time.time() if now is None else now
    chain = key = leaf = None
    if certificate is not None and private_key is not None:
        chain, key, leaf = _read_pair(
            Path(certificate),
            Path(private_key),
            ExtendedKeyUsageOID.CLIENT_AUTH,
            allow_readable_key=allow_readable_key,
            now=moment,
        )
    elif certificate is not None or private_key is not None:
        given = Path(certificate or private_key or "")
        raise TLSFileError(
            "half_pair",
            f"{given} is given alone: give the client's certificate and its private key both, "
            "or neither.",
            given,
        )
    bundle, authorities = read_bundle(Path(ca), moment)
    return ClientTLSFiles(chain, key, bundle, leaf, authorities)


def find_ca_key(client_ca: str | os.PathLike[str]) -> Path | None:
    """The readable private key of one of the bundle's authorities, in the bundle's folder; or None.

    An intruder on a server that can read it can issue certificates: the server should warn. Files
    are searched by content, not by name. Raises ``TLSFileError``
    only for the bundle itself.
    """
    path = Path(client_ca)
    authorities = pem.load_certificates(pem.read(path), path)
    try:
        beside = sorted(path.resolve().parent.iterdir())
    except OSError:
        return None
    for candidate in beside:
        try:
            if not candidate.is_file() or candidate.stat().st_size > _MAX_KEY_FILE:
                continue
            data = candidate.read_bytes()
            if b"PRIVATE KEY-----" not in data:
                continue
            public = load_pem_private_key(data, password=None).public_key()
        except (OSError, *pem.MALFORMED):
            # Unreadable, encrypted or no key: useless to an intruder too.
            continue
        if any(same_key(public, authority.public_key()) for authority in authorities):
            return candidate
    return None


def check_dates(certificate: x509.Certificate, path: Path, now: float) -> None:
    """Raise ``TLSFileError`` (``expired``, ``not_yet_valid``) unless valid at ``now``."""
    if now > certificate.not_valid_after_utc.timestamp():
        successor = "make a new authority, and trust both for a while"
        remedy = successor if pem.is_ca(certificate) else "renew it, as secure-certs renew does"
        raise TLSFileError(
            "expired",
            f"{path} expired on {_when(certificate.not_valid_after_utc)}: {remedy}.",
            path,
        )
    if now < certificate.not_valid_before_utc.timestamp():
        raise TLSFileError(
            "not_yet_valid",
            f"{path} is not valid before {_when(certificate.not_valid_before_utc)}: check this "
            "machine's clock.",
            path,
        )


def check_pair(
    leaf: x509.Certificate, certificate: Path, key_pem: bytes, private_key: Path
) -> None:
    """Raise ``TLSFileError`` unless the key is readable, servable and the certificate's own."""
    key = pem.load_private_key(key_pem, private_key)
    if not is_servable(leaf.public_key()):
        raise pem.key_type_error(certificate)
    if not same_key(key.public_key(), leaf.public_key()):
        raise TLSFileError(
            "key_mismatch",
            f"{private_key} is not the key of the first certificate in {certificate}: put the "
            "leaf first, and replace both files together.",
            private_key,
        )


def check_usage(leaf: x509.Certificate, path: Path, usage: ObjectIdentifier) -> None:
    """Raise ``TLSFileError`` (``is_ca``, ``eku``) unless a leaf for this extended key usage."""
    if pem.is_ca(leaf):
        raise TLSFileError(
            "is_ca", f"{path} is the certificate of an authority: use a leaf issued by it.", path
        )
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = None
    if usages is None or usage not in usages:
        wanted = "serverAuth" if usage == ExtendedKeyUsageOID.SERVER_AUTH else "clientAuth"
        raise TLSFileError(
            "eku",
            f"{path} is not issued for this use: its extended key usage lacks {wanted}.",
            path,
        )


def check_server_names(leaf: x509.Certificate, path: Path) -> None:
    """Raise ``TLSFileError`` (``no_san``) unless clients can verify a name (RFC 9525)."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    if not any(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        raise TLSFileError(
            "no_san",
            f"{path} names no host: clients need a DNS name or an IP address among its subject "
            "alternative names.",
            path,
        )


def _read_pair(
    certificate: Path,
    private_key: Path,
    usage: ObjectIdentifier,
    *,
    allow_readable_key: bool,
    now: float,
) -> tuple[bytes, bytes, x509.Certificate]:
    chain = pem.read(certificate)
    key = pem.read_secret(private_key, allow_readable=allow_readable_key)
    return chain, key, _check_pair(chain, certificate, (key, private_key), usage, now)


def _check_pair(
    chain: bytes,
    certificate: Path,
    key: tuple[bytes, Path],
    usage: ObjectIdentifier,
    now: float,
) -> x509.Certificate:
    leaf, *others = pem.load_certificates(chain, certificate)
    check_pair(leaf, certificate, *key)
    check_dates(leaf, certificate, now)
    check_usage(leaf, certificate, usage)
    if others:
        _check_chain(leaf, others, certificate, usage, now)
    return leaf


def _check_chain(
    leaf: x509.Certificate,
    others: list[x509.Certificate],
    path: Path,
    usage: ObjectIdentifier,
    now: float,
) -> None:
    """Refuse useless intermediates: the one that issued the leaf must be valid now.

    Which anchors the peer trusts is unknown here.
    """
    verdict = judge_path(leaf, others, others, usage=usage, now=now)
    if verdict.code:
        raise TLSFileError(
            "chain",
            f"{path} holds more than one certificate, and those after the first do not vouch for "
            f"it: {verdict.reason} Put the leaf first, then the authority that issued it.",
            path,
        )


def read_bundle(path: Path, now: float) -> tuple[bytes, tuple[x509.Certificate, ...]]:
    """Read a trust bundle: its PEM, and the authorities in it, at least one of them good now.

    Raises ``TLSFileError``.
    """
    data = pem.read(path)
    return data, _check_bundle(data, path, now)


def _check_bundle(data: bytes, path: Path, now: float) -> tuple[x509.Certificate, ...]:
    authorities = tuple(c for c in pem.load_certificates(data, path) if pem.is_ca(c))
    if not authorities:
        raise TLSFileError(
            "no_ca",
            f"{path} holds no certificate of an authority (CA:TRUE): a trust bundle lists "
            "authorities, not leaves.",
            path,
        )
    # One valid authority is enough: an expired one may stay in the bundle.
    if all(why := [why_no_anchor(authority, now) for authority in authorities]):
        latest = max(authorities, key=lambda authority: authority.not_valid_after_utc)
        check_dates(latest, path, now)
        raise TLSFileError(
            "no_ca", f"{path} holds no authority that can be trusted: {why[0]}", path
        )
    return authorities


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
