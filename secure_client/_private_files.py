"""Files that nobody else may read: written whole or not at all, refused when others could have."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from secure_client.errors import ProfileError

# A lock is held for one call with a deadline of ten seconds; more than two in a row are rare.
_LOCK_PATIENCE = 30.0
_LOCK_PAUSE = 0.02


def read_private(path: Path, *, forbidden: int = 0o077) -> bytes | None:
    """The contents, or None where there is no such file.

    Raises ``ProfileError`` if it is somebody else's, or has a mode bit in ``forbidden``.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            mode = stat.S_IMODE(found.st_mode)
            if found.st_uid != os.geteuid():
                raise ProfileError(f"{path} belongs to another user: it is not trusted.", path)
            if mode & forbidden:
                raise ProfileError(
                    f"{path} has mode {mode:04o}, so that others can get at it. If they cannot "
                    f"have, run: chmod 600 {path}. Otherwise delete it and log in again.",
                    path,
                )
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}.", path) from None


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` with mode 0600: after a crash the old or the new is there.

    The folder is made, 0700, if it is missing. Raises ``ProfileError``.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        # Without this the rename itself may be lost, and with it a refresh token that works once.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ProfileError(f"{path} cannot be written: {error.strerror}.", path) from None


def remove_private(path: Path) -> None:
    """Delete the file if it is there. Raises ``ProfileError``."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ProfileError(f"{path} cannot be deleted: {error.strerror}.", path) from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of this name, among all threads and processes of this machine.

    The file stays: a lock file that is deleted can be held twice. Raises ``ProfileError`` if
    another one holds it for half a minute.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ProfileError(f"{path} cannot be locked: {error.strerror}.", path) from None
    try:
        _acquire(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path) -> None:
    end = time.monotonic() + _LOCK_PATIENCE
    while True:
        with suppress(BlockingIOError):
            # flock, not lockf: it excludes two threads of one process too.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() >= end:
            raise ProfileError(
                f"{path} has been locked by another process for {_LOCK_PATIENCE:.0f} seconds: "
                "see what hangs there.",
                path,
            )
        time.sleep(_LOCK_PAUSE)
