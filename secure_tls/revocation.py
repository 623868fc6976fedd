"""Revoking a certificate, by name, file or serial number, on the folder's own list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from secure_tls import own_list, pem, replaced
from secure_tls.check import describe_certificate
from secure_tls.errors import AuthorityError, TLSFileError
from secure_tls.outcome import FileState, Outcome
from secure_tls.pairs import sole_run

if TYPE_CHECKING:
    from secure_tls.layout import Layout

# RFC 5280, section 4.1.2.2: 20 octets, the first bit of which is 0.
_MAX_SERIAL = 2**159


class Reason(StrEnum):
    """Why a leaf is revoked for good (RFC 5280, section 5.3.1).

    Without the reasons for authorities and those that take a revocation back.
    """

    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


@dataclass(frozen=True, slots=True)
class _Target:
    """One certificate to revoke; ``path`` is None where only its serial number is known."""

    serial: int
    path: Path
    certificate: x509.Certificate | None = None


def revoke(layout: Layout, wanted: str | int, *, reason: Reason | None = None) -> list[Outcome]:
    """Add a certificate to the list and raise the list's number, unless it is on it already.

    ``wanted`` is a serial number, the path of a certificate of this authority, or the name of a
    leaf in the folder, which also revokes the certificates that it replaced.

    Raises ``AuthorityError`` (``unknown_name``, ``ambiguous_name``, ``foreign``, ``is_ca``,
    ``serial``) and ``TLSFileError``.
    """
    ca = layout.ca_certificate()
    with sole_run(layout.path, needs_lock=True) as (_, repaired):
        current = own_list.load(layout)
        targets = _numbered(layout, wanted) if isinstance(wanted, int) else _named(layout, wanted)
        for target in targets:
            _check(target, ca)
        known = {
            target: current.crl.get_revoked_certificate_by_serial_number(target.serial)
            for target in targets
        }
        new = [target for target, entry in known.items() if entry is None]
        if new:
            authority = layout.authority()
            flag = None if reason is None else x509.ReasonFlags(reason.value)
            entries = [authority.revocation(target.serial, flag) for target in new]
            crl = own_list.sign(layout, authority, current, entries)
        else:
            crl = own_list.keep_fresh(layout, locked=True)
    return [*repaired, *(_outcome(target, entry) for target, entry in known.items()), crl]


def _numbered(layout: Layout, serial: int) -> list[_Target]:
    if not 0 < serial < _MAX_SERIAL:
        raise AuthorityError(
            "serial",
            "A serial number has 1 to 20 bytes: give it in hexadecimal, as openssl x509 -serial "
            "prints it.",
        )
    for leaf in layout.leaves():
        try:
            certificate = leaf.load()[0]
        except TLSFileError:
            continue
        if certificate.serial_number == serial:
            return [_target(leaf.certificate, certificate)]
    earlier = [c for c in replaced.load(layout) if c.serial_number == serial]
    return [_target(layout.replaced, c) for c in earlier] or [_Target(serial, layout.crl)]


def _named(layout: Layout, name: str) -> list[_Target]:
    try:
        leaf = layout.leaf(name)
    except AuthorityError as error:
        path = Path(name)
        if error.code != "unknown_name" or not path.is_file():
            raise
        return [_target(path, pem.load_certificates(pem.read(path), path)[0])]
    certificate = leaf.load()[0]
    others = [
        earlier
        for earlier in replaced.load(layout)
        if replaced.same_identity(earlier, certificate)
        and earlier.serial_number != certificate.serial_number
        and earlier.not_valid_after_utc.timestamp() >= layout.clock()
    ]
    return [
        _target(leaf.certificate, certificate),
        *(_target(layout.replaced, earlier) for earlier in others),
    ]


def _target(path: Path, certificate: x509.Certificate) -> _Target:
    return _Target(certificate.serial_number, path, certificate)


def _check(target: _Target, ca: x509.Certificate) -> None:
    """Refuse what this list cannot revoke."""
    certificate = target.certificate
    if target.serial == ca.serial_number or (certificate is not None and pem.is_ca(certificate)):
        raise AuthorityError(
            "is_ca",
            "An authority is not revoked by its own list: take it out of every trust bundle.",
        )
    if certificate is not None and not pem.is_issued_by(certificate, ca):
        raise AuthorityError(
            "foreign",
            f"{target.path} is not signed by ca.pem: only its own authority can revoke it.",
        )


def _outcome(target: _Target, entry: x509.RevokedCertificate | None) -> Outcome:
    note = f"serial {pem.serial_text(target.serial)}"
    state = FileState.REVOKED
    if entry is not None:
        state = FileState.ALREADY_REVOKED
        note += f", on the list since {entry.revocation_date_utc:%Y-%m-%d %H:%M} UTC"
    if target.certificate is None:
        return Outcome(target.path, state, note=note)
    finding = describe_certificate(target.path, target.certificate)
    return Outcome(target.path, state, finding.who, finding.until, note)
