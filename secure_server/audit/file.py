"""``file_logger``: a rotated file of JSON lines."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from secure_base.creatable import creation_error, will_exist
from secure_server.audit.errors import AuditLoggerError
from secure_server.audit.event import AuditEvent
from secure_server.audit.plugin import AuditLoggerType
from secure_server.audit.record import full_record, lines
from secure_server.fields import File, Section


class FileSettings(Section):
    """``config`` of ``file_logger``."""

    path: File
    max_bytes: Annotated[int, Field(ge=64 * 1024)] = 100 * 1024 * 1024
    """Before the file grows beyond this, it is renamed to ``PATH.1`` and a new one is created."""
    backups: Annotated[int, Field(ge=1, le=1000)] = 5
    """How many renamed files are kept; ``PATH.1`` is the newest, and the oldest is deleted."""


class FileLogger:
    """Appends A59's line, with the true reason of refusals, to a file that only its owner may read.

    Several processes may write to one file: each locks it while it writes or rotates.
    """

    def __init__(self, settings: FileSettings) -> None:
        """Open the file. Raises ``AuditLoggerError``."""
        self._path = settings.path
        self._max_bytes = settings.max_bytes
        self._backups = settings.backups
        try:
            self._file = self._open()
        except OSError as error:
            raise _cannot_be_written(self._path, error) from None

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Append all events or none. Raises ``OSError``, which names the file."""
        data = b"".join(lines(map(full_record, events)))
        try:
            self._lock()
            try:
                size = os.fstat(self._file).st_size
                if size and size + len(data) > self._max_bytes:
                    self._rotate()
                    self._lock()
                self._append(data)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(self._path)) from None

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> int:
        # O_NONBLOCK, or opening a FIFO at this path would block the start.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            file = os.open(self._path, flags, 0o600)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a FIFO that no process reads, or a socket
                raise _no_regular_file() from None
            raise
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise _no_regular_file()
        return file

    def _lock(self) -> None:
        """Lock the file that is at the path now: another process or logrotate may have moved it."""
        while True:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(self._file), self._path.stat()):
                    return
            except FileNotFoundError:
                pass
            moved, self._file = self._file, self._open()
            os.close(moved)

    def _rotate(self) -> None:
        for number in range(self._backups - 1, 0, -1):
            older = self._backup(number)
            if older.exists():
                older.replace(self._backup(number + 1))
        self._path.replace(self._backup(1))

    def _backup(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _append(self, data: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            # Remove half a line, which a full disk leaves and which would spoil the next one.
            os.ftruncate(self._file, size)
            raise


def look(settings: FileSettings) -> None:
    """Raise the ``AuditLoggerError`` that ``FileLogger`` would, without opening the file."""
    path = settings.path
    try:
        _check_writable(path)
    except OSError as error:
        raise _cannot_be_written(path, error) from None


def _check_writable(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        path = path.resolve()  # it may be a link to the place where the file is made
        if not will_exist(path.parent):
            path.parent.stat()  # no folder is made for it
        if (error := creation_error(path)) is not None:
            raise error from None
        return
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(path, os.W_OK, effective_ids=True):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    if not stat.S_ISREG(mode):
        raise _no_regular_file()


def _no_regular_file() -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file")


def _cannot_be_written(path: Path, error: OSError) -> AuditLoggerError:
    return AuditLoggerError(
        f"{path}: cannot be written: {error.strerror}. Let the server write there, or name another "
        "path."
    )


FILE = AuditLoggerType(FileSettings, FileLogger, look)
