"""Deleting the sessions that cuts have ended, a batch at a time."""

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
"""Most sessions that one transaction ends: some milliseconds of the write lock."""

_PRUNE_SECONDS = 600.0
_RETRY_SECONDS = 1.0
_PATIENCE = 1.0  # seconds to wait for the write lock: `close` waits for this thread
_c = revocations.c


class Sweeper:
    """Deletes the sessions that cuts have ended, on a thread of its own.

    It continues where another process has stopped: it reads every cut in the feed, and a cut is
    deleted only after its sessions. Until they are deleted, ``Sessions`` finds by the feed that
    they have ended.
    """

    def __init__(self, database: Database, *, issuer: str, clock: Callable[[], float]) -> None:
        """``issuer`` is this server's own, to whose tokens the sessions belong."""
        self._database = database
        self._issuers = (issuer, UNNAMED)
        self._clock = clock
        self._swept = 0
        self._awake = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sessions-swept", daemon=True)

    def start(self) -> None:
        """Start the thread; it begins with the sessions that an earlier process left."""
        self._awake.set()
        self._thread.start()

    def wake(self) -> None:
        """Look for cuts. May be called within the transaction that writes one: it is found too."""
        self._awake.set()

    def close(self) -> None:
        """Stop after the transaction that is running; the next process deletes the rest."""
        self._over.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> int:
        """Delete all sessions that cuts have ended; returns how many. Raises ``StoreError``."""
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
            # Let other writers in, also those of other processes, which poll for the lock.
            self._over.wait(2 * (time.monotonic() - begin))
        return len(ids)

    def _forget_cuts(self) -> None:
        """Delete cuts whose sessions are deleted and whose tokens have expired.

        It waits for the write lock, so the transaction that called ``wake`` has committed when
        ``sweep`` then reads the feed.
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
