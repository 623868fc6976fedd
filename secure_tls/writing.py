"""Writing files that are whole or not there; what is there is only ever replaced whole."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from secure_tls.errors import TLSFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIX = ".secure-certs-"
_SUFFIX = ".tmp"
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_new(path: Path, data: bytes, *, secret: bool) -> bool:
    """Write a file that does not exist yet; return False, having done nothing, if it does.

    The bytes go to a temporary file in the same folder, to the disk, and then by ``link`` to
    their name: ``link`` fails where a name is taken, which ``rename`` does not. So whenever the
    process or the machine stops, the name has either nothing or all of it, and two runs at once
    cannot overwrite each other. With ``secret`` the file has mode 0600 before its first byte.

    Raises ``TLSFileError``: ``unwritable``.
    """
    temporary = _temporary(path)
    try:
        descriptor = os.open(temporary, _FLAGS, 0o600 if secret else 0o644)
        try:
            _fill(descriptor, data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno in _NO_HARD_LINKS and error.filename2 is not None:
            reason = "its file system has no hard links: choose another folder with --out"
            raise _unwritable(path, reason) from error
        raise unwritable(path, error) from error
    return True


def replace(path: Path, data: bytes, *, secret: bool) -> None:
    """Put new bytes in a file's place: whoever opens it reads all of the old or all of the new.

    Raises ``TLSFileError``: as ``write_draft``.
    """
    temporary = _temporary(path)
    write_draft(temporary, path, data, secret=secret)
    try:
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def write_draft(draft: Path, path: Path, data: bytes, *, secret: bool) -> None:
    """Write to the disk what shall take the place of ``path``, by a ``rename`` within its folder.

    It gets the owner and mode of what it replaces, so that whoever could read that can read it
    too; with ``secret`` the mode is 0600, before its first byte.

    Raises ``TLSFileError``: ``unwritable``, and ``link`` where ``path`` is a symbolic link.
    """
    if path.is_symlink():
        raise TLSFileError(
            "link", f"{path} is a link to a file elsewhere: replace that one where it lies.", path
        )
    try:
        old = path.stat() if path.exists() else None
        descriptor = os.open(draft, _FLAGS, 0o600 if secret else 0o644)
        try:
            _fill(descriptor, data, old, keep_mode=not secret)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def make_folder(path: Path) -> None:
    """Create a folder that only its owner may enter; keep one that is there as it is.

    Raises ``TLSFileError``: ``unwritable``.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
        # A folder that may be written, but not listed, cannot be opened for this.
        with suppress(PermissionError):
            sync_folder(path.parent)
    except FileExistsError:
        if not path.is_dir():
            raise not_a_folder(path) from None
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def sole_writer(folder: Path, *, below: bool = True) -> Iterator[bool]:
    """Wait for other runs in this folder, then sweep up what killed ones left behind.

    In the folders ``below`` it, too, where all who write there have the lock of this one.
    Yields whether there is a lock: ``write_new`` alone keeps files whole where a file system has
    none, but whoever replaces a file must have read it under the lock.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            # NFS cannot lock folders. Without the lock a temporary file may be somebody's.
            yield False
            return
        pattern = f"{_PREFIX}*{_SUFFIX}"
        for leftover in folder.rglob(pattern) if below else folder.glob(pattern):
            leftover.unlink(missing_ok=True)
        yield True
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def not_a_folder(path: Path) -> TLSFileError:
    """The error for a file where a folder is wanted."""
    return TLSFileError(
        "unwritable", f"{path} is not a folder: choose another one with --out.", path
    )


def unwritable(path: Path, error: OSError) -> TLSFileError:
    """The error for a file that the system does not let be written."""
    return _unwritable(path, f"{error.strerror}: make room or get the right there, then run again")


def _unwritable(path: Path, reason: str) -> TLSFileError:
    return TLSFileError("unwritable", f"{path} cannot be written ({reason}).", path)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")


def _fill(
    descriptor: int, data: bytes, old: os.stat_result | None = None, *, keep_mode: bool = False
) -> None:
    with os.fdopen(descriptor, "wb") as file:
        own = os.fstat(descriptor)
        # Renewed by root, a key would otherwise be root's, and its server could not read it.
        if old is not None and (own.st_uid, own.st_gid) != (old.st_uid, old.st_gid):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        if old is not None and keep_mode:
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & 0o644)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
