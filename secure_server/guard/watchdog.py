"""Notices that a serving thread, or an event loop, does not move any more.

**Threads.** grpcio runs ``grpc._server._serve`` on one thread of each server: it waits for an event
of the core, handles it, and waits for the next. What is measured is for how long it has been
handling one event: it waits for a lock or an answer, or for code that does not come to an end. An
idle server waits in ``_serve`` itself, and that is no stall. Not seen are a core that delivers no
events, and a thread that holds the interpreter's lock.

**asyncio.** The loop is asked to call a function; what is measured is for how long it has not done
so. The loop is the host's: the watchdog only says so.

Time is counted in looks, not by a clock: a process that was stopped (SIGSTOP, a suspended machine)
missed them all, and nothing is said of it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from types import CodeType, FrameType
from typing import Protocol

import grpc._server

from secure_server import logs
from secure_server.guard.callbacks import Callbacks
from secure_server.guard.stacks import all_stacks

LOOK_EVERY = 1.0
"""Seconds. A look takes a tenth of a millisecond."""

STALLED_AFTER = 5.0
"""Seconds for which one event is handled until that is called a stall."""

# Private: where a later grpcio has it no more, nothing is ever called a stall. A test says so.
_SERVE: CodeType | None = getattr(getattr(grpc._server, "_serve", None), "__code__", None)  # noqa: SLF001


class _Watched(Protocol):
    """What is looked at; ``thread`` is the ``threading.get_ident()`` of the thread it runs on."""

    name: str
    thread: int

    def has_moved(self) -> bool | None:
        """Whether it has moved since the last look; None if it has ended."""


class _ServingThread:
    """grpcio's thread of one server."""

    name = "serving thread"

    def __init__(self, thread: int) -> None:
        self.thread = thread

    def has_moved(self) -> bool | None:
        handling: FrameType | None = None
        frame = sys._current_frames().get(self.thread)  # noqa: SLF001 - a documented function
        while frame is not None and frame.f_code is not _SERVE:
            handling, frame = frame, frame.f_back
        if frame is None:
            return None
        if handling is None:
            return True  # it waits for an event
        # Marked, to be known again, by an attribute that is for tracing alone. A reference would
        # keep the event, which grpcio must have let go of before it waits for the next one; and
        # the ``id`` of a frame is soon another's.
        was_marked = not handling.f_trace_lines
        handling.f_trace_lines = False
        return not was_marked


class _Loop:
    """The event loop that an asyncio server runs on."""

    name = "event loop"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.thread = threading.get_ident()
        self._loop = loop
        self._answered = True

    def has_moved(self) -> bool | None:
        if self._loop.is_closed():
            return None
        if not self._loop.is_running():
            return True  # its host has stopped it, and may go on with it
        if not self._answered:
            return False
        self._answered = False
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # closed just now
            return None
        return True

    def _answer(self) -> None:
        self._answered = True


class Watchdog:
    """Looks at the serving threads and event loops of one guard, from a thread of its own, which
    is started with the first call.
    """

    def __init__(self, callbacks: Callbacks) -> None:
        """Look at ``callbacks`` beside them: they are logged where they do not return."""
        self.stalls = 0
        """How many stalls there were."""
        self.threads: dict[int, _Watched] = {}
        """What is watched, by the ``threading.get_ident()`` of its thread."""
        self._callbacks = callbacks
        self._looks: dict[int, int] = {}  # for which it has not moved
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stalled_seconds(self) -> float:
        """For how long the one has not moved that stands still the longest; 0 without a stall."""
        longest = max(tuple(self._looks.values()), default=0) * LOOK_EVERY
        return longest if longest >= STALLED_AFTER else 0.0

    def add_serving_thread(self) -> None:
        """Watch the thread that calls this, which is a server's serving thread."""
        thread = threading.get_ident()
        self._add(thread, _ServingThread(thread))

    def add_loop(self) -> None:
        """Watch the event loop that calls this."""
        self._add(threading.get_ident(), _Loop(asyncio.get_running_loop()))

    def close(self) -> None:
        """Stop looking."""
        self._over.set()

    def _add(self, thread: int, watched: _Watched) -> None:
        self.threads[thread] = watched
        with self._lock:
            if self._thread is not None or self._over.is_set():
                return
            thread_of_ours = threading.Thread(target=self._run, name="watchdog", daemon=True)
            try:
                thread_of_ours.start()
            except RuntimeError:  # the system has no more: a later call tries again
                del self.threads[thread]
                return
            self._thread = thread_of_ours

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            try:
                for thread, watched in tuple(self.threads.items()):
                    self._look(thread, watched)
                self._callbacks.look()
            except Exception:  # noqa: BLE001 - one failed look must not end the watch
                logs.logger(__name__).exception("the watchdog could not look")

    def _look(self, thread: int, watched: _Watched) -> None:
        moved = watched.has_moved()
        if moved is False:
            looks = self._looks[thread] = self._looks.get(thread, 0) + 1
            if (looks - 1) * LOOK_EVERY < STALLED_AFTER <= looks * LOOK_EVERY:
                self.stalls += 1
                logs.logger(__name__).error(
                    f"the {watched.name} stands still: no call is answered",
                    seconds=round(looks * LOOK_EVERY, 1),
                    stack=all_stacks(thread),
                )
            return
        if moved is None and self.threads.get(thread) is watched:
            del self.threads[thread]
        looks = self._looks.pop(thread, 0)
        if looks * LOOK_EVERY >= STALLED_AFTER:
            logs.logger(__name__).warning(
                f"the {watched.name} {'has ended' if moved is None else 'moves again'}",
                seconds=round(looks * LOOK_EVERY, 1),
            )
