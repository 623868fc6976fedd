"""``replaced.pem``: the certificates that renewals replaced and that are still valid.

The old certificate stays valid until it expires, so revoking a client must revoke it too; the
client's own file holds only the new one.
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
    """Add these and drop the expired ones; only under the folder's lock.

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
