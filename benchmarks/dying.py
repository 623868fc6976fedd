"""``secure-server`` that kills itself at one step of a revocation.

``python -m benchmarks.dying STEP NUMBER WRITE serve …`` is ``secure-server serve …`` with SIGKILL
at this step of the revocation with this number, counted from 0. WRITE is the number of the write
to a file at which it dies, where the step is among writes.
"""

from __future__ import annotations

import os
import signal
import sys
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.default import DefaultDialect

from benchmarks.sqlite_files import Access, watch

_BEGIN, _INSERT = "BEGIN IMMEDIATE", "INSERT INTO revocations "


class Step(StrEnum):
    """The steps at which it dies, in the order of a revocation."""

    ASKED = "before its transaction"
    LOCKED = "in its transaction, before the first line"
    INSERTED = "in its transaction, after the first line"
    COMMITTING = "in the commit, half of a write done"
    WRITTEN = "in the commit, all written, before the sync"
    SYNCED = "in the commit, after the sync"
    CHECKPOINTING = "in the checkpoint, half of a write done"
    COMMITTED = "after the commit"
    KNOWN = "after the commit, known to the process"
    ANSWERED = "after the answer"
    ANYTIME = "at any moment"
    OTHER = "another process, at any moment"

    @property
    def is_own(self) -> bool:
        """Whether the process kills itself there; else another process kills it."""
        return self not in {Step.ANSWERED, Step.ANYTIME, Step.OTHER}


class Death:
    """Follows the revocations of the process by patching the code that makes them."""

    def __init__(self, step: Step, number: int, write: int) -> None:
        self._step = step
        self._number = number
        self._write = write
        self._passed = 0
        self._revoking = self._committing = False
        self._writes = 0

    def prepare(self) -> None:
        """Patch everything. Once per process, before anything opens a database."""
        if self._step is Step.CHECKPOINTING:
            # At every commit, not at every hundredth or so.
            event.listen(Engine, "connect", _checkpoint_always)
        event.listen(Engine, "before_cursor_execute", self._before_statement)
        event.listen(Engine, "after_cursor_execute", self._after_statement)
        watch(self._on_file)
        self._around_commit()
        self._around_refresh()

    def _reached(self, step: Step) -> None:
        if step is self._step and self._passed == self._number:
            _die()

    # Writers wait for each other, so there is one transaction at a time.

    def _before_statement(self, _connection: Connection, _cursor: Any, text: str, *_: Any) -> None:
        if text == _BEGIN:
            self._revoking = False
            self._reached(Step.ASKED)

    def _after_statement(self, _connection: Connection, _cursor: Any, text: str, *_: Any) -> None:
        if text == _BEGIN:
            self._reached(Step.LOCKED)
        elif text.startswith(_INSERT):
            self._revoking = True
            self._reached(Step.INSERTED)

    def _around_commit(self) -> None:
        commit = DefaultDialect.do_commit

        def do_commit(dialect: DefaultDialect, connection: Any) -> None:
            self._committing, self._writes = self._revoking, 0
            commit(dialect, connection)  # type: ignore[no-untyped-call]
            if self._committing:
                self._reached(Step.COMMITTED)
                self._passed += 1
            self._committing = self._revoking = False

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]

    def _around_refresh(self) -> None:
        from secure_server.tokens.revocations import Revocations  # noqa: PLC0415

        refresh = Revocations.refresh

        def refreshed(revocations: Revocations) -> None:
            refresh(revocations)
            if self._step is Step.KNOWN and self._passed > self._number:
                _die()

        Revocations.refresh = refreshed  # type: ignore[method-assign, assignment]

    def _on_file(self, access: Access) -> None:
        if not self._committing or self._passed != self._number:
            return
        match self._step, access:
            case Step.COMMITTING, Access("wal", "write", done=False):
                self._torn(access)
            case Step.COMMITTING | Step.WRITTEN, Access("wal", "sync", done=False):
                _die()  # there were fewer writes than that
            case Step.SYNCED, Access("wal", "sync", done=True):
                _die()
            case Step.CHECKPOINTING, Access("database", "write", done=False):
                self._torn(access)
            case Step.CHECKPOINTING, Access("database", "sync", done=False):
                _die()

    def _torn(self, access: Access) -> None:
        if self._writes == self._write:
            access.half()
            _die()
        self._writes += 1


def _checkpoint_always(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA wal_autocheckpoint = 1").close()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    step, number, write, *command = sys.argv[1:]
    Death(Step[step], int(number), int(write)).prepare()
    from secure_server.cli import main as run  # noqa: PLC0415 - not before it can be followed

    sys.argv[1:] = command
    run()


if __name__ == "__main__":
    main()
