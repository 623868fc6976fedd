"""The certificates that were renewed and are still valid, which ``replaced.pem`` remembers.

Both a new certificate and the one before it are good until that ends: whoever revokes a client
means both, and the folder has only the new one in the client's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from secure_base.atomic_files import replace
from secure_tls import pem
from secure_tls.layout import Layout, is_there
from secure_tls.writing import explained

if TYPE_CHECKING:
    from collections.abc import Sequence


def load(layout: Layout) -> list[x509.Certificate]:
    """The certificates of ``replaced.pem``, none without it. Raises ``TLSFileError``."""
    if not is_there(layout.replaced):
        return []
    return list(pem.load_certificates(pem.read(layout.replaced), layout.replaced))


def remember(layout: Layout, certificates: Sequence[x509.Certificate]) -> None:
    """Add these and drop what has expired; only under the folder's lock.

    Raises ``TLSFileError``.
    """
    both = {c.serial_number: c for c in [*load(layout), *certificates]}
    now = layout.clock()
    valid = [c for c in both.values() if c.not_valid_after_utc.timestamp() >= now]
    if valid:
        with explained(layout.replaced):
            replace(layout.replaced, b"".join(map(pem.encode, valid)), secret=False, keep=True)
    else:
        layout.replaced.unlink(missing_ok=True)


def same_identity(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether both name the same server or client."""
    return _identity(one) == _identity(other)


def _identity(certificate: x509.Certificate) -> tuple[object, ...]:
    wanted = (x509.SubjectAlternativeName, x509.ExtendedKeyUsage)
    return (
        certificate.subject,
        *(e.value for e in certificate.extensions if isinstance(e.value, wanted)),
    )
