"""Deleting the sessions that a cut has ended, a few at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, delete, select

from secure_server import logs
from secure_server.store.database import Database
from secure_server.store.errors import StoreError
from secure_server.store.lock_wait import waiting_at_most
from secure_server.store.schema import revocations, sessions
from secure_server.tokens.cuts import ended_by
from secure_server.tokens.revoked import UNNAMED

BATCH = 500
"""Sessions that one transaction ends at the most: some milliseconds of the write lock."""

_PRUNE_SECONDS = 600.0
_RETRY_SECONDS = 1.0
_PATIENCE = 1.0  # seconds for the write lock: ``close`` waits for us
_c = revocations.c


class Sweeper:
    """Deletes what cuts have ended, on a thread of its own.

    A class because it goes on where another process has stopped: it begins with every line of the
    feed that is a cut, and no such line is forgotten before its sessions are gone. The sessions are
    dead before that: ``Sessions`` asks the feed.
    """

    def __init__(self, database: Database, *, issuer: str, clock: Callable[[], float]) -> None:
        """``issuer`` is ours, of whose tokens these are the sessions."""
        self._database = database
        self._issuers = (issuer, UNNAMED)
        self._clock = clock
        self._swept = 0
        self._awake = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sessions-swept", daemon=True)

    def start(self) -> None:
        """Begin, with what a process before this one left."""
        self._awake.set()
        self._thread.start()

    def wake(self) -> None:
        """Look for cuts, that of the transaction that is running in this process included."""
        self._awake.set()

    def close(self) -> None:
        """Stop after the transaction that is running; the next process does the rest."""
        self._over.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> int:
        """Delete everything that cuts have ended; returns how many. Raises ``StoreError``."""
        self._forget_cuts()
        with self._database.read() as connection:
            new = select(_c.seq, _c.kind, _c.value, _c.issued_until, _c.except_session).where(
                _c.seq > self._swept, _c.issued_until.is_not(None), _c.issuer.in_(self._issuers)
            )
            cuts = connection.execute(new.order_by(_c.seq)).all()
        swept = 0
        for cut in cuts:
            while ended := self._sweep_some(cut):
                swept += ended
            if self._over.is_set():
                break
            self._swept = cut.seq
        return swept

    def _sweep_some(self, cut: Row[*tuple[Any, ...]]) -> int:
        if self._over.is_set():
            return 0
        query = select(sessions.c.session_id).where(*ended_by(cut)).limit(BATCH)
        with self._database.read() as connection:
            ids = connection.execute(query).scalars().all()
        begin = time.monotonic()
        if ids:
            with waiting_at_most(_PATIENCE), self._database.write() as connection:
                connection.execute(delete(sessions).where(sessions.c.session_id.in_(ids)))
            # Others' turn, those of other processes too, which poll for the lock.
            self._over.wait(2 * (time.monotonic() - begin))
        return len(ids)

    def _forget_cuts(self) -> None:
        """Forget cuts whose sessions are gone and whose tokens have ended.

        The transaction comes after that which is running: whoever wakes us may be in the middle.
        """
        dead = (
            select(_c.seq)
            .where(_c.expire_time <= self._clock(), _c.issued_until.is_not(None))
            .where(_c.seq <= self._swept)
            .limit(BATCH)
        )
        with waiting_at_most(_PATIENCE), self._database.write() as connection:
            connection.execute(delete(revocations).where(_c.seq.in_(dead)))

    def _run(self) -> None:
        wait = _PRUNE_SECONDS
        while not self._over.is_set():
            self._awake.wait(wait)
            self._awake.clear()
            if self._over.is_set():
                return
            try:
                swept = self.sweep()
            except StoreError as error:
                logs.logger(__name__).warning("ended sessions are not deleted", reason=str(error))
                wait = _RETRY_SECONDS
            else:
                if swept:
                    logs.logger(__name__).info("ended sessions were deleted", sessions=swept)
                wait = _PRUNE_SECONDS
