"""The watch on open streams: ends those that are no longer allowed, within a second of the change.

What a stream was admitted by can end while it is open: its token, its session, its certificate, the
rule that allowed it. So the guard decides again about every open stream at each ``notice`` of a
change, and about a single stream when its token or certificate expires.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from secure_server import logs
from secure_server.guard.call import Call
from secure_server.guard.caller import Caller
from secure_server.guard.core import Core
from secure_server.guard.refusal import Answer, Refusal
from secure_server.guard.thread_pool import ThreadPool

LOOK_EVERY = 0.2
"""Seconds. Twice this, ``LAST_WORD`` and the time for a revocation to arrive add up to less than a
second."""

LAST_WORD = 0.3
"""Seconds for sending the status of an ended stream; then it is cut."""

_AGAIN = 1.0
"""Seconds until a stream is checked again that may stay open past its expiry: within the leeway for
clocks, or while its issuer cannot be reached."""

_ASKING = 0.4
"""Seconds for an authenticator to answer about a stream; after that the stream is checked as its
last known caller, until there is an answer."""

_THREADS = 8
_FOREVER = float("inf")


class WatchedStream(Protocol):
    """An open stream. Both methods must return without blocking: one thread serves all streams."""

    def end(self, answer: Answer) -> None:
        """End it with a status. Called once."""

    def cut(self) -> None:
        """End it without a status, because the peer reads nothing."""


class _Entry:
    """A stream, its call, and when the guard decides about it again: at ``due``, in seconds since
    the epoch; ``notices`` counts those before its last decision.
    """

    __slots__ = ("asked_at", "call", "caller", "due", "notices", "stream")

    def __init__(self, stream: WatchedStream, caller: Caller, call: Call) -> None:
        self.stream = stream
        self.caller = caller
        self.call = call
        # None: something may have changed between the decision and the adding.
        self.notices: int | None = None
        self.due = _due(caller)
        self.asked_at: float | None = None


class StreamWatch:
    """Checks all open streams of a guard on one thread; checks that may block run on others."""

    def __init__(self, core: Core, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives seconds since the epoch, as the tokens count them."""
        self._core = core
        self._clock = clock
        self._open: dict[int, _Entry] = {}
        # Streams that were ended but are not over, and when they are cut.
        self._ending: dict[int, tuple[float, _Entry]] = {}
        self._notices = 0
        self._was_current = True
        self._noticing = threading.Lock()
        self._over = threading.Event()
        self._workers = ThreadPool(_THREADS, name="stream-watch")
        self._thread = threading.Thread(target=self._run, name="stream-watch", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: WatchedStream, caller: Caller, call: Call) -> None:
        """Watch a stream that was just admitted."""
        self._open[id(stream)] = _Entry(stream, caller, call)

    def notice(self, _changed: object = None) -> None:
        """Decide again about all streams: something that decisions depend on has changed.

        It happens at the next look, so many changes at once cost one round.
        """
        with self._noticing:
            self._notices += 1

    def remove(self, stream: WatchedStream) -> None:
        """Forget a stream that is over."""
        self._open.pop(id(stream), None)
        self._ending.pop(id(stream), None)

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()
        self._workers.shutdown(wait=False)

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            # A feed becomes stale without a notice.
            if self._core.feed_is_current != self._was_current:
                self._was_current = not self._was_current
                self.notice()
            self._look_at_all(self._notices)
            for until, entry in tuple(self._ending.values()):
                if time.monotonic() >= until:
                    self.remove(entry.stream)
                    _try(entry, entry.stream.cut)

    def _look_at_all(self, notices: int) -> None:
        """Decide about the streams that are due, by a state not older than ``notices``."""
        now = self._clock()
        for entry in tuple(self._open.values()):
            asked_at = entry.asked_at  # read once: its worker unsets it
            if asked_at is not None:
                if time.monotonic() >= asked_at + _ASKING:
                    self._check(entry, notices, now)
            elif entry.notices != notices or now >= entry.due:
                self._look(entry, notices, now)

    def _look(self, entry: _Entry, notices: int, now: float) -> None:
        try:
            caller = self._core.try_recheck_cached(entry.call)
        except Refusal as refusal:
            self._refused(entry, refusal, notices, now)
            return
        if caller is None:
            entry.asked_at = time.monotonic()
            self._workers.submit(self._look_longer, entry, notices)
        else:
            self._may_go_on(entry, caller, notices, now)

    def _look_longer(self, entry: _Entry, notices: int) -> None:
        now = self._clock()  # read first: the answer counts from here, however long it takes
        try:
            self._may_go_on(entry, self._core.recheck(entry.call), notices, now)
        except Refusal as refusal:
            self._refused(entry, refusal, notices, now)
        finally:
            entry.asked_at = None

    def _check(self, entry: _Entry, notices: int, now: float) -> None:
        try:
            self._core.recheck_as(entry.caller, entry.call)
        except Refusal as refusal:
            self._refused(entry, refusal, notices, now)

    def _may_go_on(self, entry: _Entry, caller: Caller, notices: int, now: float) -> None:
        entry.caller, entry.notices = caller, notices
        entry.due = max(_due(caller), now + _AGAIN)

    def _refused(self, entry: _Entry, refusal: Refusal, notices: int, now: float) -> None:
        answer = refusal.reason.ending or self._ending_by_what_is_known(entry)
        if answer is None:
            # Its issuer cannot be asked now: the stream stays open until it can, or it expires.
            entry.notices, entry.due = notices, now + _AGAIN
            return
        if self._open.pop(id(entry.stream), None) is None:
            return  # it is over already
        self._ending[id(entry.stream)] = (time.monotonic() + LAST_WORD, entry)
        _try(entry, lambda: entry.stream.end(answer))

    def _ending_by_what_is_known(self, entry: _Entry) -> Answer | None:
        try:
            self._core.recheck_as(entry.caller, entry.call)
        except Refusal as refusal:
            return refusal.reason.ending
        return None


def _try(entry: _Entry, end: Callable[[], None]) -> None:
    try:
        end()
    except Exception:  # noqa: BLE001 - a failure here must not keep other streams open
        logs.logger(__name__).exception("a stream could not be ended", method=entry.call.method)


def _due(caller: Caller) -> float:
    principal = caller.principal
    # The chain may expire before the certificate itself, and so may its revocation lists.
    peer_ends = _FOREVER if caller.peer is None else caller.peer.trusted_until
    return min(principal.expires_at or _FOREVER, principal.recheck_at or _FOREVER, peer_ends)
