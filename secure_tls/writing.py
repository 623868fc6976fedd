"""Writing files that are whole or not there, and that never replace anything."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from secure_tls.errors import TLSFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIX = ".secure-certs-"
_SUFFIX = ".tmp"
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def write_new(path: Path, data: bytes, *, secret: bool) -> bool:
    """Write a file that does not exist yet; return False, having done nothing, if it does.

    The bytes go to a temporary file in the same folder, to the disk, and then by ``link`` to
    their name: ``link`` fails where a name is taken, which ``rename`` does not. So whenever the
    process or the machine stops, the name has either nothing or all of it, and two runs at once
    cannot overwrite each other. With ``secret`` the file has mode 0600 before its first byte.

    Raises ``TLSFileError``: ``unwritable``.
    """
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, 0o600 if secret else 0o644)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    return True


def make_folder(path: Path) -> None:
    """Create a folder that only its owner may enter; keep one that is there as it is.

    Raises ``TLSFileError``: ``unwritable``.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
        # A folder that may be written, but not listed, cannot be opened for this.
        with suppress(PermissionError):
            _sync_folder(path.parent)
    except FileExistsError:
        if not path.is_dir():
            raise TLSFileError(
                "unwritable", f"{path} is not a folder: choose another one with --out.", path
            ) from None
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Wait for other runs in this folder, then sweep up what killed ones left behind.

    A convenience: ``write_new`` alone keeps files whole where a file system has no locks.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            # NFS cannot lock folders. Without the lock a temporary file may be somebody's.
            yield
            return
        for leftover in folder.rglob(f"{_PREFIX}*{_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> TLSFileError:
    if error.errno in _NO_HARD_LINKS and error.filename2 is not None:
        reason = "its file system has no hard links: choose another folder with --out"
    else:
        reason = f"{error.strerror}: make room or get the right there, then run again"
    return TLSFileError("unwritable", f"{path} cannot be written ({reason}).", path)
