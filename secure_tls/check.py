"""Checks a folder of certificates: who each is for, until when, and what is wrong."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from secure_tls import files, pem
from secure_tls.crl import number_of, parse_lists
from secure_tls.errors import TLSError, TLSFileError
from secure_tls.keys import kind_of
from secure_tls.lists import RevocationLists
from secure_tls.paths import judge_path
from secure_tls.peer import parse_peer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_AUTHORITY = "ca.pem"
_REVOCATIONS = "crl.pem"
_REPLACED = "replaced.pem"
_CERTIFICATES = (".pem", ".crt")
_KINDS = {
    ExtendedKeyUsageOID.SERVER_AUTH: "server",
    ExtendedKeyUsageOID.CLIENT_AUTH: "client",
}
# The words of `secure-certs verify` for a verdict's codes.
_SAID = {
    "certificate_authority": "is not signed by ca.pem",
    "certificate_revoked": "is revoked",
}


@dataclass(frozen=True, slots=True)
class Revoked:
    """One entry of a revocation list: ``since`` is seconds since the epoch.

    ``reason`` is RFC 5280's name for it, empty where none is given.
    """

    serial: int
    since: float
    reason: str


@dataclass(frozen=True, slots=True)
class FileFinding:
    """One file, or one certificate of ``replaced.pem``; ``problems`` are sentences.

    ``since`` and ``until`` are seconds since the epoch. ``who``, ``kind`` (``CA``, ``server``,
    ``client``, ``server, client``, ``CRL``, ``key``), ``key`` (as in ``ecdsa-p256``) and
    ``issued_by`` are empty where the file does not say. Texts come from the file and may hold any
    character.
    """

    path: Path
    who: str = ""
    kind: str = ""
    issued_by: str = ""
    since: float | None = None
    until: float | None = None
    serial: int | None = None
    key: str = ""
    revoked: tuple[Revoked, ...] = ()
    problems: tuple[str, ...] = ()


def describe(path: Path) -> FileFinding:
    """Describe a file's first certificate, or its revocation lists, without validating it.

    Raises ``TLSFileError``.
    """
    data = pem.read(path)
    if path.name == _REVOCATIONS:
        return _describe_lists(path, parse_lists(data, path))
    return describe_certificate(path, pem.load_certificates(data, path)[0])


def check_folder(folder: Path, *, now: float) -> list[FileFinding]:
    """Check every file in the folder and below; ``now`` is seconds since the epoch.

    Raises ``TLSFileError`` where there is no such folder or nothing in it to check.
    """
    if not folder.is_dir():
        raise TLSFileError("missing", f"{folder} is not a folder: name the one to check.", folder)
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in {*_CERTIFICATES, ".key"} and _visible(path) and not _is_key(path)
    )
    if not paths:
        raise TLSFileError(
            "empty", f"{folder} holds no certificates: run secure-certs to make some.", folder
        )
    checker = _Checker(folder, now)
    order = {folder / _AUTHORITY: 0, folder / _REPLACED: 2, folder / _REVOCATIONS: 3}
    certificates = [path for path in paths if path.suffix in _CERTIFICATES]
    certificates.sort(key=lambda path: (order.get(path, 1), path))
    findings = [finding for path in certificates for finding in checker.check(path)]
    if not (folder / _AUTHORITY).exists():
        problem = "is missing: without it nothing can be verified"
        findings.insert(0, FileFinding(folder / _AUTHORITY, kind="CA", problems=(problem,)))
    findings += [
        FileFinding(path, kind="key", problems=("has no certificate: run secure-certs again",))
        for path in paths
        if path.suffix == ".key" and not any(path.with_suffix(s).exists() for s in _CERTIFICATES)
    ]
    return findings


def _is_key(path: Path) -> bool:
    """Whether a file named like a certificate holds a private key, as some tools write it."""
    if path.suffix == ".key":
        return False
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return b"PRIVATE KEY-----" in data and b"-----BEGIN CERTIFICATE-----" not in data


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


class _Checker:
    """Checks file after file against one authority file and one revocation list."""

    def __init__(self, folder: Path, now: float) -> None:
        self._folder = folder
        self._now = now
        try:
            path = folder / _AUTHORITY
            self._authorities = pem.load_certificates(pem.read(path), path)
        except TLSFileError:
            # Reported when that file is checked.
            self._authorities = ()
        try:
            self._lists: RevocationLists | None = RevocationLists.load(
                folder / _REVOCATIONS, self._authorities, now=now
            )
        except TLSFileError:
            self._lists = None

    def check(self, path: Path) -> list[FileFinding]:
        try:
            if path == self._folder / _REVOCATIONS:
                return [self._check_crl(path)]
            certificate, *others = pem.load_certificates(pem.read(path), path)
        except TLSFileError as error:
            return [FileFinding(path, problems=(error.message,))]
        if path == self._folder / _REPLACED:
            # Kept to be revoked: the one possible problem is that another authority issued them.
            return [self._check_replaced(path, c) for c in (certificate, *others)]
        finding = describe_certificate(path, certificate)
        problems = [
            *_collect(lambda: files.check_dates(certificate, path, self._now)),
            *(self._authority(finding) if finding.kind == "CA" else ()),
            *(self._leaf(certificate, others, finding) if finding.kind != "CA" else ()),
            *self._key(certificate, path, required=finding.kind != "CA"),
        ]
        return [dataclasses.replace(finding, problems=tuple(problems))]

    def _check_crl(self, path: Path) -> FileFinding:
        lists = RevocationLists.load(path, self._authorities, now=self._now)
        finding = _describe_lists(path, parse_lists(pem.read(path), path))
        problems = lists.warnings(self._now)
        if any(self._now > each.next_update for each in lists):
            problems = ["is stale: run secure-certs to renew it"]
        return dataclasses.replace(finding, problems=tuple(problems))

    def _check_replaced(self, path: Path, certificate: x509.Certificate) -> FileFinding:
        finding = describe_certificate(path, certificate)
        if any(pem.is_issued_by(certificate, authority) for authority in self._authorities):
            return finding
        return dataclasses.replace(finding, problems=("is not signed by ca.pem",))

    def _authority(self, finding: FileFinding) -> list[str]:
        if finding.path == self._folder / _AUTHORITY:
            return []
        return ["is the certificate of an authority, where a leaf belongs"]

    def _leaf(
        self, certificate: x509.Certificate, others: list[x509.Certificate], finding: FileFinding
    ) -> list[str]:
        path = finding.path
        if path == self._folder / _AUTHORITY:
            return ["is not the certificate of an authority"]
        usages = [usage for usage in _usages(certificate) if usage in _KINDS]
        problems = [] if usages else ["has neither serverAuth nor clientAuth as extended key usage"]
        place = path.parent.name.removesuffix("s")
        if usages and place in _KINDS.values() and place not in finding.kind:
            problems.append(f"is a {finding.kind}'s certificate among the {place}s")
        if ExtendedKeyUsageOID.SERVER_AUTH in usages:
            problems += _collect(lambda: files.check_server_names(certificate, path))
        if ExtendedKeyUsageOID.CLIENT_AUTH in usages:
            problems += _collect(lambda: parse_peer(pem.encode(certificate)))
        problems += [self._judge(certificate, others, usage) for usage in usages]
        return [problem for problem in dict.fromkeys(problems) if problem]

    def _judge(
        self,
        certificate: x509.Certificate,
        others: list[x509.Certificate],
        usage: x509.ObjectIdentifier,
    ) -> str:
        """Validate it as a server validates a client's certificate, or a client a server's."""
        verdict = judge_path(
            certificate, others, self._authorities, usage=usage, now=self._now, lists=self._lists
        )
        if verdict.code == "certificate_dates":
            return ""  # already reported, with the date
        return _SAID.get(verdict.code, verdict.reason)

    def _key(self, certificate: x509.Certificate, path: Path, *, required: bool) -> list[str]:
        key = path.with_suffix(".key")
        # The authority's key is best kept on another machine.
        if not key.exists() and not required:
            return []

        def check() -> None:
            data = pem.read_secret(key, allow_readable=True)
            files.check_pair(certificate, path, data, key)

        problems = _collect(check)
        if key.exists():
            problems += _collect(lambda: pem.read_secret(key, allow_readable=False))
        return list(dict.fromkeys(problems))


def _collect(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except TLSError as error:
        return [error.message]
    return []


def describe_certificate(path: Path, certificate: x509.Certificate) -> FileFinding:
    """Describe the certificate in the file ``path``."""
    usages = _usages(certificate)
    kinds = [kind for usage, kind in _KINDS.items() if usage in usages]
    kind = "CA" if pem.is_ca(certificate) else ", ".join(kinds)
    return FileFinding(
        path,
        who=_who(certificate),
        kind=kind,
        issued_by=certificate.issuer.rfc4514_string(),
        since=certificate.not_valid_before_utc.timestamp(),
        until=certificate.not_valid_after_utc.timestamp(),
        serial=certificate.serial_number,
        key=kind_of(certificate.public_key()),
    )


def _describe_lists(path: Path, lists: Sequence[x509.CertificateRevocationList]) -> FileFinding:
    entries = [_describe_entry(entry) for crl in lists for entry in crl]
    numbers = ", ".join(f"number {number_of(crl)}" for crl in lists)
    ends = [crl.next_update_utc for crl in lists if crl.next_update_utc is not None]
    return FileFinding(
        path,
        who=f"{numbers}, {len(entries)} revoked",
        kind="CRL",
        issued_by=", ".join(dict.fromkeys(crl.issuer.rfc4514_string() for crl in lists)),
        since=max(crl.last_update_utc for crl in lists).timestamp(),
        until=min(ends).timestamp() if ends else None,
        revoked=tuple(entries),
    )


def _describe_entry(entry: x509.RevokedCertificate) -> Revoked:
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        reason = ""
    return Revoked(entry.serial_number, entry.revocation_date_utc.timestamp(), reason)


def _usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []


def _who(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return certificate.subject.rfc4514_string()
    texts = [
        *names.get_values_for_type(x509.UniformResourceIdentifier),
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    ]
    return ", ".join(texts) or certificate.subject.rfc4514_string()
