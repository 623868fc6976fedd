"""Reports SQLite's writes and syncs before they happen (sqlite.org/vfs.html)."""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any, Literal, Protocol

_OPEN_MAIN_DB, _OPEN_WAL = 0x100, 0x80000
_WRITE, _SYNC = 3, 5  # places in sqlite3_io_methods, counted in pointers
_METHODS = 19  # of version 3, ``iVersion`` counted as one

# No `c_char_p`: SQLite keeps the pointer to the name, which must stay the one that it gave.
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _VFS(Structure):
    _fields_ = (
        ("version", c_int),
        ("size_of_file", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", _Open),
    )


@dataclass(frozen=True)
class Access:
    """What SQLite is about to do to a file of a database, or has done (``done``).

    ``half`` writes the first half of what is to be written, and no more.
    """

    file: Literal["database", "wal"]
    kind: Literal["write", "sync"]
    done: bool
    half: Callable[[], object]


class Watcher(Protocol):
    def __call__(self, access: Access, /) -> object: ...


_kept: list[Any] = []
"""Objects that C points to; they live as long as the process."""


def watch(watcher: Watcher) -> None:
    """Call ``watcher`` before and after each write and sync of databases opened from now on.

    It runs on the thread that uses the database. Raises ``RuntimeError`` where this Python's
    SQLite is not a shared library, so that its functions cannot be found.
    """
    try:
        find = ctypes.CDLL(_sqlite3.__file__).sqlite3_vfs_find
    except AttributeError:
        raise RuntimeError(
            "The SQLite of this Python shows none of its functions. Use a Python that is linked "
            "with the system's libsqlite3."
        ) from None
    find.restype, find.argtypes = POINTER(_VFS), [c_char_p]
    vfs = find(None).contents
    # A copy: the field itself is what is replaced below.
    original = _Open(ctypes.cast(vfs.open, c_void_p).value or 0)

    def opened(own: int, name: int, file: int, flags: int, out: Any) -> int:
        status: int = original(own, name, file, flags, out)
        if status == 0 and flags & (_OPEN_MAIN_DB | _OPEN_WAL):
            _replace_methods(file, "wal" if flags & _OPEN_WAL else "database", watcher)
        return status

    vfs.open = _Open(opened)
    _kept.extend((original, vfs.open, opened))


def _replace_methods(file: int, name: Literal["database", "wal"], watcher: Watcher) -> None:
    """Replace the methods of an open file: the first field of ``sqlite3_file`` points to them."""
    pointer = c_void_p.from_address(file)
    methods = (c_void_p * _METHODS)()
    ctypes.memmove(methods, pointer.value or 0, ctypes.sizeof(methods))
    write, sync = _Write(methods[_WRITE] or 0), _Sync(methods[_SYNC] or 0)

    def writes(own: int, data: int, size: int, offset: int) -> int:
        def half() -> object:
            return write(own, data, size // 2, offset)

        watcher(Access(name, "write", done=False, half=half))
        status: int = write(own, data, size, offset)
        watcher(Access(name, "write", done=True, half=lambda: None))
        return status

    def syncs(own: int, flags: int) -> int:
        watcher(Access(name, "sync", done=False, half=lambda: None))
        status: int = sync(own, flags)
        watcher(Access(name, "sync", done=True, half=lambda: None))
        return status

    replaced = (_Write(writes), _Sync(syncs))
    methods[_WRITE], methods[_SYNC] = (ctypes.cast(each, c_void_p).value for each in replaced)
    pointer.value = ctypes.addressof(methods)
    _kept.append((methods, write, sync, replaced))
