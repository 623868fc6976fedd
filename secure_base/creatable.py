"""Whether a file could be made, without making it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


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
