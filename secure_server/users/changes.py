"""The feed of changes of users."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, delete, func, select

from secure_server.store.database import Database
from secure_server.store.schema import user_changes
from secure_server.users.account import Account
from secure_server.users.errors import OutOfRangeError

__all__ = ["KEPT_SECONDS", "Change", "ChangeKind", "Changes"]

KEPT_SECONDS = 7 * 24 * 3600.0
"""Seconds for which changes are kept at least."""

_RECENT = 1024
"""Changes that are also kept in memory, half a kilobyte each."""


class ChangeKind(StrEnum):
    """What happened to the user."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """One change. ``account`` is the user after the change, or before its deletion."""

    number: int
    kind: ChangeKind
    account: Account


class Changes:
    """Reads the feed, and waits for new changes.

    A class because all waiting streams share one reader, which reads each change once: ``start`` it
    once per process. Numbers rise in the order of the commits and are never given twice.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._news = threading.Condition()
        self._newest = 0
        # The newest changes, without a gap; replaced as a whole.
        self._recent: tuple[Change, ...] = ()
        self._closed = False
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin to follow the feed. Raises ``StoreError``."""
        self._on_look(changed=True)
        self._unsubscribe = self._database.tailer.subscribe(
            lambda changed: self._on_look(changed=changed)
        )

    def close(self) -> None:
        """Stop following, and make every ``wait`` return."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def position(self) -> int:
        """Return the number of the newest change; 0 before the first. Raises ``StoreError``."""
        with self._database.read() as connection:
            return _newest(connection)

    def after(self, number: int, limit: int) -> list[Change]:
        """Return up to ``limit`` changes that follow ``number``, oldest first.

        Raises ``OutOfRangeError`` where one of them has been pruned or ``number`` is beyond the
        newest, and ``StoreError``.
        """
        c = user_changes.c
        query = select(c.number, c.kind, c.account).where(c.number > number).order_by(c.number)
        with self._database.read() as connection:
            oldest = connection.scalar(select(func.min(c.number))) or 1
            if not oldest - 1 <= number <= _newest(connection):
                raise OutOfRangeError(
                    "The changes after this one are not kept. List the users and watch from now."
                )
            rows = connection.execute(query.limit(limit)).all()
        return _read(rows)

    def wait(self, number: int, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; returns whether there is a change after ``number``.

        Changes of every process count. After ``close`` it returns at once.
        """
        with self._news:
            self._news.wait_for(lambda: self._closed or self._newest > number, timeout)
            return self._newest > number

    def follow(self, number: int, limit: int, timeout: float) -> Sequence[Change]:
        """Wait up to ``timeout`` seconds for changes after ``number``, and return up to ``limit``.

        Callers that are up to date get the changes from memory, without a read of the database
        for each caller. Raises what ``after`` raises.
        """
        if not self.wait(number, timeout):
            return ()
        recent = self._recent
        if number < recent[0].number - 1:
            return self.after(number, limit)
        begin = bisect_right(recent, number, key=_NUMBER)
        return recent[begin : begin + limit]

    def prune(self) -> int:
        """Delete changes older than a week; returns how many. Raises ``StoreError``.

        It stops at the first change that is not older, so the rest has no gap even where the clock
        was set back. The newest change always stays: its number is the position of the feed.
        """
        c = user_changes.c
        with self._database.write() as connection:
            recent = connection.scalar(
                select(c.number)
                .where(c.time > self._clock() - KEPT_SECONDS)
                .order_by(c.number)
                .limit(1)
            )
            keep_from = _newest(connection) if recent is None else recent
            return connection.execute(delete(user_changes).where(c.number < keep_from)).rowcount

    def _on_look(self, *, changed: bool) -> None:
        if not changed:
            return
        c = user_changes.c
        query = select(c.number, c.kind, c.account).where(c.number > self._newest)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(c.number.desc()).limit(_RECENT)).all()
        if not rows:
            return
        new = _read(reversed(rows))
        with self._news:
            # Without a gap: older changes are unread only where `new` fills all places.
            self._recent = (*self._recent, *new)[-_RECENT:]
            self._newest = new[-1].number
            self._news.notify_all()


_NUMBER = attrgetter("number")


def _read(rows: Iterable[Any]) -> list[Change]:
    return [
        Change(row.number, ChangeKind(row.kind), Account.from_json(row.account)) for row in rows
    ]


def _newest(connection: Connection) -> int:
    return connection.scalar(select(func.max(user_changes.c.number))) or 0
