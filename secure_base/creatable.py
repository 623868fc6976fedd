"""Whether a file could be made, without making it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_MADE: ContextVar[frozenset[Path]] = ContextVar("secure_base_made", default=frozenset())


@contextmanager
def folders_made_before(folders: Iterable[Path]) -> Iterator[None]:
    """Say within the block which folders will exist by then, for ``will_exist``."""
    token = _MADE.set(frozenset(folder.resolve() for folder in folders))
    try:
        yield
    finally:
        _MADE.reset(token)


def will_exist(folder: Path) -> bool:
    """Whether a folder exists, or will by the time in question."""
    return folder.is_dir() or folder.resolve() in _MADE.get()


def creation_error(path: Path) -> OSError | None:
    """Return the error that making a file, and the folders that it lacks, would meet now.

    Of the rights it sees what the kernel tells, for the effective user; of the room on the disk
    nothing. None where the file could be made; whether it exists is not asked.
    """
    for folder in path.parents:
        try:
            mode = folder.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            return error
        if not stat.S_ISDIR(mode):
            return _error(errno.ENOTDIR, folder)
        if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            return None
        is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        return _error(errno.EROFS if is_read_only else errno.EACCES, folder)
    return None


def _error(code: int, path: Path) -> OSError:
    return OSError(code, os.strerror(code), os.fspath(path))
