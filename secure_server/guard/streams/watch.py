"""The watch on open streams: who may not go on is told so, within a second of the change.

What lets a stream in can end while it is open: its token's time, its session, its certificate, the
rule that allowed it. So the door is asked about it again whenever one of these has changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from secure_server import logs
from secure_server.guard.caller import Caller
from secure_server.guard.core import Core, Metadata
from secure_server.guard.refusal import Answer, Refusal

LOOK_EVERY = 0.2
"""Seconds; twice this, the last word and the time that a revocation takes to get here are under a
second."""

LAST_WORD = 0.3
"""Seconds in which the status of a stream that is ended must have gone out."""

_AGAIN = 1.0
"""Seconds until a stream is looked at again that may go on although its time has come: within the
leeway for clocks, and while its issuer cannot be asked."""

_ASKING = 0.4
"""Seconds in which somebody who must be asked about a stream answers; from then on it is checked by
what was known of its caller, until there is an answer."""

_THREADS = 8
_FOREVER = float("inf")

_BY_POLICY = frozenset({"policy", "anonymous_denied"})
_STALE = "revocations_stale"


class WatchedStream(Protocol):
    """An open stream. Neither method may wait: the others wait for this one."""

    def end(self, answer: Answer) -> None:
        """End it with a status. Called once."""

    def cut(self) -> None:
        """End it without: the status does not go out, for somebody reads nothing."""


class _Entry:
    """What the door is asked about again, and when; ``state`` is what it knew the last time."""

    __slots__ = ("asked_at", "caller", "due", "metadata", "method", "state", "stream", "transport")

    def __init__(
        self,
        stream: WatchedStream,
        caller: Caller,
        method: str,
        metadata: Metadata,
        transport: Mapping[str, Sequence[bytes]],
    ) -> None:
        self.stream = stream
        self.caller = caller
        self.method = method
        self.metadata = metadata
        self.transport = transport
        self.state: object = None
        self.due = _due(caller)
        self.asked_at: float | None = None


class StreamWatch:
    """Looks at all open streams of a guard, on one thread; what may take time goes to others."""

    def __init__(self, core: Core, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives seconds since the epoch, as the tokens count them."""
        self._core = core
        self._clock = clock
        self._open: dict[int, _Entry] = {}
        # Those that were ended and are not over, and when they are cut.
        self._ending: dict[int, tuple[float, _Entry]] = {}
        self._over = threading.Event()
        self._workers = ThreadPoolExecutor(_THREADS, thread_name_prefix="stream-watch")
        self._thread = threading.Thread(target=self._run, name="stream-watch", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._open)

    def add(
        self,
        stream: WatchedStream,
        caller: Caller,
        method: str,
        metadata: Metadata,
        transport: Mapping[str, Sequence[bytes]],
    ) -> None:
        """Attend to a stream that was let in just now."""
        entry = _Entry(stream, caller, method, tuple(metadata), transport)
        # Not the state that it was let in by: that may have changed between the two.
        self._open[id(stream)] = entry

    def remove(self, stream: WatchedStream) -> None:
        """Forget a stream that is over."""
        self._open.pop(id(stream), None)
        self._ending.pop(id(stream), None)

    def close(self) -> None:
        """Stop attending."""
        self._over.set()
        self._thread.join()
        self._workers.shutdown(wait=False)

    def _run(self) -> None:
        state: tuple[object, ...] = ()
        while not self._over.wait(LOOK_EVERY):
            seen, now = self._core.state, self._clock()
            state = seen if seen != state else state  # the same object as long as it is the same
            for entry in tuple(self._open.values()):
                asked_at = entry.asked_at  # once: its worker unsets it
                if asked_at is not None:
                    if time.monotonic() >= asked_at + _ASKING:
                        self._check(entry, state)
                elif entry.state is not state or now >= entry.due:
                    self._look(entry, state, now)
            for until, entry in tuple(self._ending.values()):
                if time.monotonic() >= until:
                    self.remove(entry.stream)
                    _try(entry, entry.stream.cut)

    def _look(self, entry: _Entry, state: object, now: float) -> None:
        try:
            caller = self._core.recheck(entry.method, entry.metadata, entry.transport, warm=True)
        except Refusal as refusal:
            self._refused(entry, refusal, state)
            return
        if caller is None:
            entry.asked_at = time.monotonic()
            self._workers.submit(self._look_longer, entry, state)
        else:
            self._may_go_on(entry, caller, state, now)

    def _look_longer(self, entry: _Entry, state: object) -> None:
        now = self._clock()  # the answer is as of now, however long it takes
        try:
            caller = self._core.recheck(entry.method, entry.metadata, entry.transport, warm=False)
            assert caller is not None
            self._may_go_on(entry, caller, state, now)
        except Refusal as refusal:
            self._refused(entry, refusal, state)
        finally:
            entry.asked_at = None

    def _check(self, entry: _Entry, state: object) -> None:
        try:
            self._core.check(entry.caller, entry.method, entry.metadata, entry.transport)
        except Refusal as refusal:
            self._refused(entry, refusal, state)

    def _may_go_on(self, entry: _Entry, caller: Caller, state: object, now: float) -> None:
        entry.caller, entry.state = caller, state
        entry.due = max(_due(caller), now + _AGAIN)

    def _refused(self, entry: _Entry, refusal: Refusal, state: object) -> None:
        if refusal.code in _BY_POLICY:
            answer = Answer.POLICY_CHANGED
        elif refusal.answer is Answer.CREDENTIALS_REFUSED:
            answer = Answer.SESSION_ENDED
        elif refusal.code == _STALE:
            answer = Answer.UNAVAILABLE
        elif self._clock() >= (entry.caller.principal.expires_at or _FOREVER):
            answer = Answer.SESSION_ENDED
        else:
            # Nobody can tell now; who was let in goes on until somebody can, or its time is over.
            entry.state, entry.due = state, self._clock() + _AGAIN
            return
        if self._open.pop(id(entry.stream), None) is None:
            return  # it is over already
        self._ending[id(entry.stream)] = (time.monotonic() + LAST_WORD, entry)
        _try(entry, lambda: entry.stream.end(answer))


def _try(entry: _Entry, end: Callable[[], None]) -> None:
    try:
        end()
    except Exception:  # noqa: BLE001 - one stream must not keep the others open
        logs.logger(__name__).exception("a stream could not be ended", method=entry.method)


def _due(caller: Caller) -> float:
    principal = caller.principal
    # Its path may end before the certificate itself, and so may the lists on the way.
    peer_ends = _FOREVER if caller.peer is None else caller.peer.trusted_until
    return min(principal.expires_at or _FOREVER, principal.recheck_at or _FOREVER, peer_ends)
