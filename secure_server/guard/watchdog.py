"""Detects a stalled serving thread or event loop.

**Threads.** grpcio runs ``grpc._server._serve`` on one thread of each server: it waits for an event
of the core, handles it, and waits for the next. The watchdog measures how long it has been handling
one event: a lock, an answer, or code that does not return blocks it. An idle server waits in
``_serve`` itself, which is no stall. The watchdog does not see a core that delivers no events, or a
thread that holds the GIL. A thread that has ended (an exception that grpcio does not catch) while
its server was not stopped counts as stalled until the server is stopped.

**asyncio.** The watchdog asks the loop to call a function, and measures how long that takes. The
loop belongs to the host: the watchdog only reports.

Time is counted in looks, not by a clock: a process that was stopped (SIGSTOP, a suspended machine)
made no looks meanwhile, and reports no stall.
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
"""Seconds of handling one event from which on it is a stall."""

# Private: if a later grpcio lacks them, no stall is detected. A test checks that they exist.
_SERVE: CodeType | None = getattr(getattr(grpc._server, "_serve", None), "__code__", None)  # noqa: SLF001
_STARTED: object = getattr(getattr(grpc._server, "_ServerStage", None), "STARTED", None)  # noqa: SLF001


class _Watched(Protocol):
    """A watched thread or loop; ``thread`` is the ``threading.get_ident()`` that it runs on."""

    name: str
    thread: int

    def has_moved(self) -> bool | None:
        """Whether it has moved since the last look; None if it has ended."""

    def is_missed(self) -> bool:
        """Whether it has ended, but should not have."""


class _ServingThread:
    """grpcio's serving thread of one server; built on that thread."""

    name = "serving thread"

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        # An ident is reused by later threads.
        self._thread = threading.current_thread()
        state = _server_state()
        # Weak: a server that its host has dropped has no clients to miss it.
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
        # The frame is marked, to recognise it at the next look, by an attribute that only tracing
        # uses. A reference would keep the event alive, which grpcio must release before it waits
        # for the next one; and the ``id`` of a frame is reused.
        was_marked = not handling.f_trace_lines
        handling.f_trace_lines = False
        return not was_marked


def _server_state() -> object | None:
    """Return grpcio's state of the server whose serving thread calls this."""
    handling: FrameType | None = None
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - a documented function
    while frame is not None and frame.f_code is not _SERVE:
        handling, frame = frame, frame.f_back
    # Not from the frame of ``_serve``: its ``f_locals`` would keep the event alive.
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
            return True  # its host has stopped it, and may run it again
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
    """Looks at the serving threads and event loops of one guard, on a thread of its own that the
    first call starts.
    """

    def __init__(self, callbacks: Callbacks) -> None:
        """Look at ``callbacks`` too: those that do not return are logged."""
        self.stalls = 0
        """The number of stalls so far."""
        self.threads: dict[int, _Watched] = {}
        """What is watched, by the ``threading.get_ident()`` of its thread."""
        self._callbacks = callbacks
        self._looks: dict[int, int] = {}  # how many looks a thread has not moved
        self._ended: dict[_Watched, int] = {}  # how many looks ago it ended
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stalled_seconds(self) -> float:
        """Seconds of the longest stall that is going on; 0 without a stall."""
        longest = max(0, *self._looks.copy().values(), *self._ended.copy().values(), 0) * LOOK_EVERY
        return longest if longest >= STALLED_AFTER else 0.0

    @property
    def has_ended(self) -> bool:
        """Whether a serving thread has ended though its server was not stopped."""
        return bool(self._ended)

    def add_serving_thread(self) -> None:
        """Watch the current thread, a server's serving thread."""
        self._add(threading.get_ident(), _ServingThread())

    def add_loop(self) -> None:
        """Watch the running event loop."""
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
            except RuntimeError:  # the system allows no more threads: a later call tries again
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
                    f"the {watched.name} is stalled: no call is answered",
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
                f"the {watched.name} {'has ended' if moved is None else 'runs again'}",
                seconds=round(looks * LOOK_EVERY, 1),
            )

    def _look_after(self, ended: _Watched) -> None:
        if ended.is_missed():
            self._ended[ended] += 1
        else:  # its server was stopped since
            del self._ended[ended]
