"""Certificate revocation lists (RFC 5280, section 5): load, verify, look up."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography import x509

from secure_tls import pem
from secure_tls.errors import RevocationListError, TLSFileError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_BEGIN = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True, slots=True)
class RevocationList:
    """The revoked certificates of one file or folder, verified: an immutable snapshot.

    ``next_update`` is the earliest next update, in seconds since the epoch, that its lists
    promise. A look-up is one hash of a set.
    """

    next_update: float
    _issuers: frozenset[bytes] = field(repr=False)
    _revoked: frozenset[tuple[bytes, int]] = field(repr=False)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        authorities: Iterable[x509.Certificate],
        *,
        now: float,
    ) -> Self:
        """Read a file of one DER list or any number of PEM lists, or all files of a folder.

        Each must be signed by the one of ``authorities`` that it names as its issuer. A stale
        list loads: what follows from that is for the caller to decide, see ``is_stale``.
        ``now`` is seconds since the epoch.

        Raises ``RevocationListError``, whose ``code`` is one of ``missing``, ``unreadable``,
        ``malformed``, ``foreign`` (no such authority), ``forged`` (the signature is not the
        authority's), ``unsupported`` (delta, indirect or partial lists), ``no_next_update``,
        ``not_yet_valid``.
        """
        revoked: set[tuple[bytes, int]] = set()
        issuers: set[bytes] = set()
        ends: list[float] = []
        known = tuple(authorities)
        lists = [one for file in _files(Path(path)) for one in load_lists(file, known, now=now)]
        for verified in lists:
            crl, issuer = verified.crl, verified.issuer
            ends.append(verified.next_update)
            # The issuer's name as the authority's own certificate spells it is how its leaves
            # spell it; a list may encode the same name otherwise.
            names = {issuer.subject.public_bytes(), crl.issuer.public_bytes()}
            issuers |= names
            revoked.update((name, entry.serial_number) for entry in crl for name in names)
        return cls(min(ends), frozenset(issuers), frozenset(revoked))

    def knows(self, issuer: bytes) -> bool:
        """Whether there is a list of this issuer's, by its DER name."""
        return issuer in self._issuers

    def is_revoked(self, issuer: bytes, serial: int) -> bool:
        """Whether this certificate is revoked: the DER issuer name, and the serial number."""
        return (issuer, serial) in self._revoked

    def is_stale(self, now: float) -> bool:
        """Whether a newer list should have come by ``now``, seconds since the epoch."""
        return now > self.next_update


def _files(path: Path) -> list[Path]:
    """The files of a folder, hidden ones left out (Kubernetes keeps its own there)."""
    try:
        if not path.is_dir():
            return [path]
        files = [one for one in sorted(path.iterdir()) if one.name[0] != "." and one.is_file()]
    except OSError as error:
        raise RevocationListError(
            "unreadable", f"{path} cannot be read: {error.strerror}.", path
        ) from error
    if not files:
        raise RevocationListError(
            "missing", f"{path} holds no revocation list: put one there, or name none.", path
        )
    return files


@dataclass(frozen=True, slots=True)
class VerifiedList:
    """One list as it was signed, by ``issuer``; ``next_update`` is seconds since the epoch."""

    crl: x509.CertificateRevocationList
    issuer: x509.Certificate
    next_update: float

    @property
    def number(self) -> int:
        return number_of(self.crl)


def number_of(crl: x509.CertificateRevocationList) -> int:
    """A list's CRL number (RFC 5280, section 5.2.3), 0 where it has none."""
    try:
        value = crl.extensions.get_extension_for_class(x509.CRLNumber).value
    except x509.ExtensionNotFound:
        return 0
    return value.crl_number


def load_lists(
    path: Path, authorities: Iterable[x509.Certificate], *, now: float
) -> list[VerifiedList]:
    """Read and verify the lists of a file, at least one; raises as ``RevocationList.load``."""
    try:
        data = pem.read(path)
    except TLSFileError as error:
        raise RevocationListError(error.code, error.message, path) from error
    known = tuple(authorities)
    with _complete(path):
        return [
            VerifiedList(crl, _verify(crl, known, path), _check(crl, path, now))
            for crl in _parse(data, path)
        ]


def parse_lists(data: bytes, path: Path) -> list[x509.CertificateRevocationList]:
    """The lists of a file's bytes, at least one, not verified.

    Raises ``RevocationListError``, whose ``code`` is ``malformed``, for the file at ``path``.
    """
    with _complete(path):
        lists = _parse(data, path)
        for crl in lists:
            # Parsed lazily: what is wrong in there must come to light here.
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
    # A block that is cut off must not pass for one that was never there.
    if not blocks or len(blocks) != data.count(_BEGIN):
        raise RevocationListError(
            "malformed",
            f"{path} holds no complete revocation list: fetch it again from its authority.",
            path,
        )
    return [x509.load_pem_x509_crl(block) for block in blocks]


def _verify(
    crl: x509.CertificateRevocationList, authorities: tuple[x509.Certificate, ...], path: Path
) -> x509.Certificate:
    named = [c for c in authorities if c.subject == crl.issuer and _may_sign(c)]
    if not named:
        raise RevocationListError(
            "foreign",
            f"{path} has a list of {crl.issuer.rfc4514_string()!a}, which is no authority of the "
            "trust bundle that may sign lists: add that authority, or remove the list.",
            path,
        )
    for authority in named:
        # Any public key that signs is fine; others (X25519, say) raise TypeError.
        try:
            if crl.is_signature_valid(authority.public_key()):  # type: ignore[arg-type]
                return authority
        except TypeError:
            continue
    raise RevocationListError(
        "forged",
        f"{path} is not signed by the authority that it names: fetch it again, and find out who "
        "wrote this one.",
        path,
    )


def _may_sign(authority: x509.Certificate) -> bool:
    if not pem.is_ca(authority):
        return False
    try:
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.crl_sign


def _check(crl: x509.CertificateRevocationList, path: Path, now: float) -> float:
    """Refuse what would be misread; return the next update in seconds since the epoch."""
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
