"""Errors of the store."""

from __future__ import annotations

import sqlite3

__all__ = ["StoreError", "StoreUnavailableError", "StoreUnusableError", "from_sqlite"]


class StoreError(Exception):
    """The database failed; nothing of the transaction was stored.

    ``code`` is for machines. The text never contains SQL, parameters or stored values.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StoreUnavailableError(StoreError):
    """A later call may succeed: ``LOCKED``, ``FULL``, ``READ_ONLY``, ``FAILED`` or ``CLOSED``."""


class StoreUnusableError(StoreError):
    """An operator must act first: ``UNSUPPORTED``, ``UNREADABLE``, ``NEWER`` or ``FOREIGN``."""


_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_UNREADABLE = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_CLOSED_TO_US = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


def from_sqlite(error: BaseException) -> StoreError:
    """Return the typed error for an error of the driver, without the driver's text."""
    # The low byte is the primary code, the rest says more (sqlite.org/rescode.html).
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in _LOCKED:
        return StoreUnavailableError(
            "LOCKED", "The database is locked by another writer for too long. Try again."
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailableError("FULL", "The disk of the database is full. Free some space.")
    if code == sqlite3.SQLITE_READONLY:
        return StoreUnavailableError(
            "READ_ONLY", "The database cannot be written. Check the rights of its file and folder."
        )
    if code in _UNREADABLE:
        return StoreUnusableError(
            "UNREADABLE", "The file is not a SQLite database, or it is damaged. Restore a backup."
        )
    if code in _CLOSED_TO_US:
        return StoreUnavailableError(
            "FAILED", "The database cannot be opened. Check the rights of its file and folder."
        )
    return StoreUnavailableError("FAILED", "The database failed. See the cause in the server log.")
