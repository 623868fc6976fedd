"""Noticing that files have changed, by whatever program and in whatever way."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

Signature = tuple[object, ...]

_TICK = 50_000_000
"""Nanoseconds: more than the tick by which a kernel stamps files (4 ms on Linux)."""


def signature(paths: Iterable[str | os.PathLike[str]]) -> Signature:
    """Return what differs when one of the files does, or its mode; a folder stands for its entries.

    What a name leads to is looked at. So a file that is written over, one that is renamed into its
    place, and the symbolic links that Kubernetes swaps are all the same. A file that was written a
    moment ago has a new signature at each look: it may be written again without any other sign.

    Raises ``OSError`` (``EINVAL``) for a pipe or a socket: to open one may wait for ever.
    """
    return tuple(_signature(Path(path)) for path in paths)


def _signature(path: Path) -> Signature:
    try:
        status = path.stat()
    except OSError:
        return ()
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    try:
        if not stat.S_ISDIR(status.st_mode):
            return _of(status)
        # Folders in a folder are not followed: links could lead round and round.
        return _of(status), *((entry.name, _of_entry(entry)) for entry in sorted(path.iterdir()))
    except OSError:
        return ()


def _of_entry(path: Path) -> Signature:
    try:
        return _of(path.stat())
    except OSError:
        return ()


def _of(status: os.stat_result) -> Signature:
    found = (
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        # The time of the last change also tells of a mode that has been put right.
        status.st_ctime_ns,
        status.st_size,
    )
    written = max(status.st_mtime_ns, status.st_ctime_ns)
    is_racy = abs(time.time_ns() - written) < _TICK
    return (*found, object()) if is_racy else found
