"""The revocation list that a folder's own authority signs, and that every run keeps fresh.

Servers may refuse a list past its end, so it is re-signed even where nothing is revoked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from secure_base.atomic_files import replace
from secure_tls.crl import ParsedList, parse_file
from secure_tls.errors import RevocationListError, TLSFileError
from secure_tls.layout import Layout, is_there
from secure_tls.outcome import FileState, Outcome
from secure_tls.writing import explained

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

    from secure_tls.authority import Authority


def load(layout: Layout) -> ParsedList:
    """The folder's list, verified. Raises ``TLSFileError``, ``no_crl`` where there is none."""
    if not is_there(layout.crl):
        raise TLSFileError(
            "no_crl",
            f"{layout.crl} is missing: put it back (secure-certs would make an empty one, which "
            "forgets who was revoked).",
            layout.crl,
        )
    lists = parse_file(layout.crl, now=layout.clock())
    authority = layout.ca_certificate()
    if any(each.issuer_among([authority]) is None for each in lists):
        raise RevocationListError(
            "foreign",
            f"{layout.crl} is no list of the authority in {layout.ca}: put that one's list there.",
            layout.crl,
        )
    if len(lists) != 1:
        raise RevocationListError(
            "unsupported",
            f"{layout.crl} holds more than one revocation list: keep the others elsewhere.",
            layout.crl,
        )
    return lists[0]


def keep_fresh(layout: Layout, *, locked: bool) -> Outcome:
    """Re-sign the list after half of its lifetime; a note says why where that is impossible.

    Raises ``TLSFileError`` where the authority cannot be read or the list cannot be written.
    """
    try:
        current = load(layout)
    except TLSFileError as error:
        return Outcome.of(layout.crl, FileState.KEPT, error.message)
    start = current.crl.last_update_utc.timestamp()
    if layout.clock() < (start + current.next_update) / 2:
        return Outcome.of(layout.crl, FileState.KEPT)
    note = ""
    if not is_there(layout.ca_key):
        note = "half of its life is over: run secure-certs where ca.key is"
    elif not locked:
        note = "half of its life is over, and a file system without locks keeps it from renewal"
    if note:
        return Outcome.of(layout.crl, FileState.KEPT, note)
    return sign(layout, layout.authority(), current)


def sign(
    layout: Layout,
    authority: Authority,
    current: ParsedList,
    new: Iterable[x509.RevokedCertificate] = (),
) -> Outcome:
    """Replace the list by the next one, with all its entries; only under the folder's lock.

    Raises ``TLSFileError``.
    """
    crl = authority.crl([*current.crl, *new], number=current.number + 1)
    with explained(layout.crl):
        replace(layout.crl, crl.public_bytes(Encoding.PEM), secret=False, keep=True)
    return Outcome.of(layout.crl, FileState.RENEWED)
