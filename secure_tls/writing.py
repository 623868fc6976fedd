"""Writing in a folder of certificates: one run at a time, and what goes wrong in sentences."""

from __future__ import annotations

import errno
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from secure_base.atomic_files import NoHardLinksError, NoLocksError, locked, remove_drafts
from secure_tls.errors import TLSFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn ``OSError`` into ``TLSFileError``: ``link`` or ``unwritable``."""
    try:
        yield
    except OSError as error:
        raise _explanation(path, error) from error


@contextmanager
def sole_writer(folder: Path) -> Iterator[bool]:
    """Wait for other runs in this folder, then delete the drafts that killed ones left.

    Yields whether there is a lock: ``write_new`` alone keeps files whole where a file system has
    none, but a run that replaces a file must have read it under the lock. Raises
    ``TLSFileError``.
    """
    with ExitStack() as held:
        with explained(folder):
            try:
                held.enter_context(locked(folder))
            except NoLocksError:
                has_lock = False  # a draft may be another run's
            else:
                has_lock = True
                for name in ("*.pem", "*.key"):
                    remove_drafts(folder, name, below=True)
        yield has_lock


def _explanation(path: Path, error: OSError) -> TLSFileError:
    if error.errno == errno.ELOOP:
        return TLSFileError(
            "link", f"{path} is a link to a file elsewhere: replace that one where it lies.", path
        )
    if isinstance(error, NotADirectoryError) and path.exists():
        return TLSFileError(
            "unwritable", f"{path} is not a folder: choose another one with --out.", path
        )
    advice = "make room or get the right there, then run again"
    if isinstance(error, NoHardLinksError):
        advice = "choose another folder with --out"
    return TLSFileError(
        "unwritable", f"{path} cannot be written ({error.strerror}: {advice}).", path
    )
