"""Notices that a serving thread, or an event loop, does not move any more.

**Threads.** grpcio runs ``grpc._server._serve`` on one thread of each server: it waits for an event
of the core, handles it, and waits for the next. What is measured is for how long it has been
handling one event: it waits for a lock or an answer, or for code that does not come to an end. An
idle server waits in ``_serve`` itself, and that is no stall. Not seen are a core that delivers no
events, and a thread that holds the interpreter's lock. A thread that has ended (an exception that
grpcio does not catch) while its server was not stopped is a stall that nothing ends but a stop.

**asyncio.** The loop is asked to call a function; what is measured is for how long it has not done
so. The loop is the host's: the watchdog only says so.

Time is counted in looks, not by a clock: a process that was stopped (SIGSTOP, a suspended machine)
missed them all, and nothing is said of it.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import weakref
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
_STARTED: object = getattr(getattr(grpc._server, "_ServerStage", None), "STARTED", None)  # noqa: SLF001


class _Watched(Protocol):
    """What is looked at; ``thread`` is the ``threading.get_ident()`` of the thread it runs on."""

    name: str
    thread: int

    def has_moved(self) -> bool | None:
        """Whether it has moved since the last look; None if it has ended."""

    def is_missed(self) -> bool:
        """Whether it has ended, but should not have."""


class _ServingThread:
    """grpcio's thread of one server: the one that builds this."""

    name = "serving thread"

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        # An ident is soon that of another thread.
        self._thread = threading.current_thread()
        state = _server_state()
        # Weak: a server that its host has let go of is missed by no client of its own.
        self._state = (lambda: None) if state is None else weakref.ref(state)

    def is_missed(self) -> bool:
        stage: object = getattr(self._state(), "stage", None)
        # A stop leaves this stage before the thread ends.
        return stage is not None and stage is _STARTED

    def has_moved(self) -> bool | None:
        if not self._thread.is_alive():
            return None
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


def _server_state() -> object | None:
    """Return grpcio's state of the server whose serving thread calls this."""
    handling: FrameType | None = None
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - a documented function
    while frame is not None and frame.f_code is not _SERVE:
        handling, frame = frame, frame.f_back
    # Not from the frame of ``_serve``: that one would keep what is read here, the event with it.
    return None if frame is None or handling is None else handling.f_locals.get("state")


class _Loop:
    """The event loop that an asyncio server runs on."""

    name = "event loop"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.thread = threading.get_ident()
        self._loop = loop
        self._answered = True

    def is_missed(self) -> bool:
        return False  # its host has closed it

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
        self._ended: dict[_Watched, int] = {}  # and for how many looks it is missed
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stalled_seconds(self) -> float:
        """For how long the one has not moved that stands still the longest; 0 without a stall."""
        longest = max(0, *self._looks.copy().values(), *self._ended.copy().values(), 0) * LOOK_EVERY
        return longest if longest >= STALLED_AFTER else 0.0

    @property
    def has_ended(self) -> bool:
        """Whether a serving thread has ended whose server was not stopped: a stall for good."""
        return bool(self._ended)

    def add_serving_thread(self) -> None:
        """Watch the thread that calls this, which is a server's serving thread."""
        self._add(threading.get_ident(), _ServingThread())

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
                for ended in tuple(self._ended):
                    self._look_after(ended)
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
        if moved is None and watched.is_missed():
            # No need to wait for it to move.
            self._ended[watched] = max(looks, math.ceil(STALLED_AFTER / LOOK_EVERY))
            self.stalls += looks * LOOK_EVERY < STALLED_AFTER
            logs.logger(__name__).error(
                f"the {watched.name} has ended and its server was not stopped: no call is answered."
                " Restart the process; the log has the exception that ended the thread"
            )
            return
        if looks * LOOK_EVERY >= STALLED_AFTER:
            logs.logger(__name__).warning(
                f"the {watched.name} {'has ended' if moved is None else 'moves again'}",
                seconds=round(looks * LOOK_EVERY, 1),
            )

    def _look_after(self, ended: _Watched) -> None:
        if ended.is_missed():
            self._ended[ended] += 1
        else:  # its server was stopped since
            del self._ended[ended]
