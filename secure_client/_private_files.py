"""The user's private files: mode 0600, written atomically, refused if other users could read."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from secure_base import atomic_files
from secure_client.errors import ProfileError

# Seconds. A lock is held for one call with a deadline of ten; more than two in a row are rare.
_LOCK_PATIENCE = 30.0


def read_private(path: Path, *, forbidden: int = 0o077) -> bytes | None:
    """The contents, or None where there is no such file.

    Raises ``ProfileError`` if another user owns it, or it has a mode bit in ``forbidden``.
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
    try:
        atomic_files.make_folder(path.parent)
        atomic_files.replace(path, data)
    except OSError as error:
        raise ProfileError(f"{path} cannot be written: {error.strerror}.", path) from None


def remove_private(path: Path) -> None:
    """Delete the file if it is there. Raises ``ProfileError``."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ProfileError(f"{path} cannot be deleted: {error.strerror}.", path) from None


@contextmanager
def locked(lock: Path, path: Path) -> Iterator[None]:
    """Hold ``lock``, the lock file of ``path``, among all threads and processes of this machine.

    Deletes what killed processes left of ``path``, so it must only be written under the lock.
    Raises ``ProfileError`` if another process holds it for half a minute.
    """
    with ExitStack() as held:
        try:
            atomic_files.make_folder(lock.parent)
            held.enter_context(atomic_files.locked(lock, seconds=_LOCK_PATIENCE))
            atomic_files.remove_drafts(path.parent, glob.escape(path.name))
        except TimeoutError:
            raise ProfileError(
                f"{lock} has been locked by another process for {_LOCK_PATIENCE:.0f} seconds: "
                "see what hangs there.",
                lock,
            ) from None
        except OSError as error:
            raise ProfileError(f"{lock} cannot be locked: {error.strerror}.", lock) from None
        yield
