"""Writing files whole or not at all, in private folders, and locks among processes.

A reader sees all of the old file or all of the new one. After a crash, of the process or of the
machine, the name holds one of the two. All functions raise ``OSError``; the callers turn it into
their own errors.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".secure-draft-"
_SUFFIX = ".tmp"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_LOCK_PAUSE = 0.02  # seconds


class NoHardLinksError(OSError):
    """The file system has no hard links, without which ``write_new`` could overwrite a file."""


class NoLocksError(OSError):
    """The file system has no locks: NFS, for instance, cannot lock folders."""


def write_new(path: Path, data: bytes, *, secret: bool) -> bool:
    """Write a file that does not exist yet; return False, having done nothing, if it does.

    The draft gets its name by ``link``, which fails where a name is taken; ``rename`` does not.
    So two processes at once cannot overwrite each other's file. With ``secret`` the file has mode
    0600 before its first byte, otherwise 0644. Raises ``OSError``, also ``NoHardLinksError``.
    """
    draft = _draft(path)
    descriptor = os.open(draft, _FLAGS, 0o600 if secret else 0o644)
    try:
        _fill(descriptor, data)
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_HARD_LINKS and error.filename2 is not None:
            reason = "its file system has no hard links"
            raise NoHardLinksError(error.errno, reason, str(path)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def replace(path: Path, data: bytes, *, secret: bool = True, keep: bool = False) -> None:
    """Write a file, in the place of the one that may be there.

    ``secret`` and ``keep`` are those of ``write_draft``. Raises ``OSError``.
    """
    draft = _draft(path)
    write_draft(draft, data, secret=secret, keep=path if keep else None)
    try:
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    # Without this the rename may be lost, and with it, say, a refresh token that works once.
    sync_folder(path.parent)


def write_draft(draft: Path, data: bytes, *, secret: bool, keep: Path | None = None) -> None:
    """Write a new file to the disk, for a ``rename`` within its folder.

    With ``secret`` it has mode 0600 before its first byte, otherwise 0644. It gets the owner of
    ``keep``, the file that it is going to replace, and without ``secret`` that file's mode, but
    never more than 0644. Raises ``OSError``: ``ELOOP`` where ``keep`` is a symbolic link, whose
    target a rename would leave as it was.
    """
    old = None
    if keep is not None:
        if keep.is_symlink():
            reason = "it is a link to a file elsewhere: replace that one where it lies"
            raise OSError(errno.ELOOP, reason, str(keep))
        with suppress(FileNotFoundError):
            old = keep.stat()
    descriptor = os.open(draft, _FLAGS, 0o600 if secret else 0o644)
    try:
        _fill(descriptor, data, old, keep_mode=not secret)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def remove_drafts(folder: Path, name: str, *, below: bool = False) -> None:
    """Delete the drafts that killed processes left of files with this ``name``, a glob.

    In a folder, and in those ``below`` it. Only under a lock that every writer of these files
    holds: a draft may be another writer's. Raises ``OSError``.
    """
    pattern = f"{_PREFIX}{name}-*{_SUFFIX}"
    for leftover in folder.rglob(pattern) if below else folder.glob(pattern):
        leftover.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Create a folder with mode 0700, and its parents; keep one that is there as it is.

    Raises ``OSError``, ``NotADirectoryError`` where the name is a file's.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
        return
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk. Raises ``OSError``."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # a folder that may be written, but not listed, cannot be opened for this
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of a folder or of a lock file, against all threads and processes.

    A lock file that is missing is made, mode 0600, and stays: two processes could hold one that
    is deleted. Waits for ever, or for ``seconds``. Raises ``OSError``: ``TimeoutError`` after
    that, ``NoLocksError`` where the file system has none.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, path, seconds)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, seconds: float | None) -> None:
    # flock, not lockf: it excludes two threads of one process too.
    try:
        if seconds is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return
        end = time.monotonic() + seconds
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() >= end:
                break
            time.sleep(_LOCK_PAUSE)
    except OSError as error:
        raise NoLocksError(error.errno, "its file system has no locks", str(path)) from error
    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), str(path))


def _draft(path: Path) -> Path:
    if not path.name:  # "/" and "."
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.with_name(f"{_PREFIX}{path.name}-{secrets.token_hex(8)}{_SUFFIX}")


def _fill(
    descriptor: int, data: bytes, old: os.stat_result | None = None, *, keep_mode: bool = False
) -> None:
    with os.fdopen(descriptor, "wb") as file:
        own = os.fstat(descriptor)
        # Replaced by root, a key would otherwise be root's, and its server could not read it.
        if old is not None and (own.st_uid, own.st_gid) != (old.st_uid, old.st_gid):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        if old is not None and keep_mode:
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & 0o644)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
