"""Certificate revocation lists (RFC 5280, section 5): load, verify, look up."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from secure_tls import pem
from secure_tls.errors import RevocationListError, TLSFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_BEGIN = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True, slots=True)
class ParsedList:
    """One complete list whose signature has yet to be verified.

    ``next_update`` is seconds since the epoch.
    """

    crl: x509.CertificateRevocationList
    path: Path
    next_update: float

    @property
    def number(self) -> int:
        return number_of(self.crl)

    @property
    def leaves_only(self) -> bool:
        try:
            point = self.crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
        except x509.ExtensionNotFound:
            return False
        return point.value.only_contains_user_certs

    def issuer_among(self, authorities: Iterable[x509.Certificate]) -> x509.Certificate | None:
        """The authority that signed the list; None where the list names none of these.

        Raises ``RevocationListError``, ``forged``, where it names one that has not signed it.
        """
        named = [each for each in authorities if each.subject == self.crl.issuer]
        for authority in named:
            if is_signed_by(self.crl, authority):
                return authority
        if not any(_may_sign(each) and _may_be_meant(self.crl, each) for each in named):
            return None
        raise RevocationListError(
            "forged",
            f"{self.path} is not signed by the authority that it names: fetch it again, and find "
            "out who wrote this one.",
            self.path,
        )


def number_of(crl: x509.CertificateRevocationList) -> int:
    """A list's CRL number (RFC 5280, section 5.2.3), 0 where it has none."""
    try:
        value = crl.extensions.get_extension_for_class(x509.CRLNumber).value
    except x509.ExtensionNotFound:
        return 0
    return value.crl_number


def parse_file(path: Path, *, now: float) -> list[ParsedList]:
    """The lists of a file, at least one, each complete and of a kind that is supported.

    Their signatures are not verified. Raises as ``RevocationLists.load``, but for ``forged``.
    """
    try:
        data = pem.read(path)
    except TLSFileError as error:
        raise RevocationListError(error.code, error.message, path) from error
    return [ParsedList(crl, path, _check(crl, path, now)) for crl in parse_lists(data, path)]


def parse_lists(data: bytes, path: Path) -> list[x509.CertificateRevocationList]:
    """The lists of a file's bytes, at least one, not verified.

    Raises ``RevocationListError``, whose ``code`` is ``malformed``, for the file at ``path``.
    """
    with _complete(path):
        lists = _parse(data, path)
        for crl in lists:
            # Parsed lazily by cryptography: read everything here, so that errors are raised here.
            _ = crl.extensions, crl.issuer, [entry.extensions for entry in crl]
        return lists


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    try:
        yield
    except pem.MALFORMED as error:
        raise RevocationListError(
            "malformed",
            f"{path} is no complete revocation list: it is empty, truncated or of another "
            "format. Fetch it again from its authority.",
            path,
        ) from error


def _parse(data: bytes, path: Path) -> list[x509.CertificateRevocationList]:
    if b"-----BEGIN " not in data:
        return [x509.load_der_x509_crl(data)]
    blocks = _BLOCK.findall(data)
    # A truncated block must not be ignored.
    if not blocks or len(blocks) != data.count(_BEGIN):
        raise RevocationListError(
            "malformed",
            f"{path} holds no complete revocation list: fetch it again from its authority.",
            path,
        )
    return [x509.load_pem_x509_crl(block) for block in blocks]


def is_signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Whether this authority may sign lists, has the name that the list gives, and signed it."""
    if authority.subject != crl.issuer or not _may_sign(authority):
        return False
    # Keys that cannot sign (X25519, say) raise TypeError.
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, UnsupportedAlgorithm):
        return False


def _may_be_meant(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Whether the list's authority key identifier, if any, is this one's: names may be equal."""
    try:
        named = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return True
    return named.key_identifier in {None, own.digest}


def _may_sign(authority: x509.Certificate) -> bool:
    if not pem.is_ca(authority):
        return False
    try:
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.crl_sign


def _check(crl: x509.CertificateRevocationList, path: Path, now: float) -> float:
    """Refuse unsupported lists; return the next update in seconds since the epoch."""
    # RFC 5280, sections 5.2 and 5.3: a list with a critical extension that is not understood must
    # not be used.
    for extension in crl.extensions:
        if isinstance(extension.value, x509.IssuingDistributionPoint):
            partial = _is_partial(extension.value)
        else:
            # A delta list that does not mark itself as critical is no complete one either.
            delta = isinstance(extension.value, x509.DeltaCRLIndicator)
            partial = delta or extension.critical
        if partial:
            raise _unsupported(path)
    for entry in crl:
        if any(extension.critical for extension in entry.extensions):
            raise _unsupported(path)
    if crl.next_update_utc is None:
        raise RevocationListError(
            "no_next_update",
            f"{path} does not say when its next update is due (RFC 5280, section 5.1.2.5): issue "
            "it with nextUpdate.",
            path,
        )
    if crl.last_update_utc.timestamp() > now:
        raise RevocationListError(
            "not_yet_valid",
            f"{path} was issued in the future ({crl.last_update_utc:%Y-%m-%d %H:%M:%S} UTC): "
            "check this machine's clock.",
            path,
        )
    return crl.next_update_utc.timestamp()


def _is_partial(point: x509.IssuingDistributionPoint) -> bool:
    return (
        point.indirect_crl
        or point.only_contains_ca_certs
        or point.only_contains_attribute_certs
        or point.only_some_reasons is not None
    )


def _unsupported(path: Path) -> RevocationListError:
    return RevocationListError(
        "unsupported",
        f"{path} is a delta, indirect or partial revocation list: use the authority's complete "
        "one.",
        path,
    )
