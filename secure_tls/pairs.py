"""A certificate and its key, replaced together although they are two files.

Both drafts are on the disk before the first rename, and the second rename follows at once. A run
killed between the two leaves one draft, which matches the replaced file: the next run notices and
completes the pair, without the authority's key.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from secure_base.atomic_files import sync_folder, write_draft
from secure_tls import files, pem
from secure_tls.errors import TLSFileError
from secure_tls.layout import LEAF_FOLDERS
from secure_tls.outcome import FileState, Outcome
from secure_tls.writing import explained, sole_writer

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = ".secure-certs-renewal."


def replace_pair(
    certificate: Path, key: Path, *, certificate_pem: bytes, private_key_pem: bytes
) -> None:
    """Replace both files; only under the folder's lock. Raises ``TLSFileError``."""
    drafts = {key: _draft(key), certificate: _draft(certificate)}
    try:
        with explained(key):
            write_draft(drafts[key], private_key_pem, secret=True, keep=key)
        with explained(certificate):
            write_draft(drafts[certificate], certificate_pem, secret=False, keep=certificate)
            sync_folder(key.parent)
    except TLSFileError:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
        raise
    _put_in_place(drafts)


@contextmanager
def sole_run(folder: Path, *, needs_lock: bool = False) -> Iterator[tuple[bool, list[Outcome]]]:
    """Lock the folder; yields whether it is locked, and which pairs had to be completed.

    Without a lock nothing is completed: another run could be writing. Raises
    ``TLSFileError``, with ``needs_lock`` also ``no_locks``.
    """
    with sole_writer(folder) as locked:
        if needs_lock and not locked:
            raise TLSFileError(
                "no_locks",
                f"{folder} is on a file system without locks, where runs at the same time could "
                "undo each other's work: do this on the machine that has the disk.",
                folder,
            )
        yield locked, _complete(folder) if locked else []


def _complete(folder: Path) -> list[Outcome]:
    completed = []
    places = [folder, *(folder / name for name in LEAF_FOLDERS)]
    for draft in sorted(draft for place in places for draft in place.glob(f"{_PREFIX}*")):
        path = draft.with_name(draft.name.removeprefix(_PREFIX))
        certificate, key = path.with_suffix(".pem"), path.with_suffix(".key")
        # The replaced file has its own name, the other one its draft's.
        pair = (draft, key) if path == certificate else (certificate, draft)
        if _belong_together(*pair):
            _put_in_place({path: draft})
            note = "a run was stopped between replacing its key and its certificate"
            completed.append(Outcome.of(certificate, FileState.REPAIRED, note))
        else:
            draft.unlink(missing_ok=True)
    return completed


def _belong_together(certificate: Path, key: Path) -> bool:
    try:
        leaf = pem.load_certificates(pem.read(certificate), certificate)[0]
        files.check_pair(leaf, certificate, pem.read_secret(key, allow_readable=True), key)
    except TLSFileError:
        return False
    return True


def _put_in_place(drafts: dict[Path, Path]) -> None:
    for path, draft in drafts.items():
        with explained(path):
            draft.replace(path)
    for folder in {path.parent for path in drafts}:
        with explained(folder):
            sync_folder(folder)


def _draft(path: Path) -> Path:
    return path.with_name(f"{_PREFIX}{path.name}")
