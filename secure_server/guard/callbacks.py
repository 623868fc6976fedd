"""Servicers' callbacks (``context.add_callback``), run on threads of the guard's.

grpcio runs them on the one thread that serves all calls of a server. A callback that waits there
stops everybody: grpcio's own health service waits for a lock that a sender holds while it waits for
that very thread, and two callers who open and cancel ``Watch`` freeze the server for good.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from secure_server import logs
from secure_server.guard.stacks import stack_of

Callback = Callable[[], object]

_THREADS = 256
"""How many calls' callbacks run at once."""

_SHARE = 16
"""How many of one kind: a callback that never returns holds up calls with the same one alone."""

_MOST_WAITING = 10_000
"""Calls whose callbacks wait for others of their kind; what comes then is dropped."""

_SLOW = 5.0
"""Seconds after which a callback that keeps others waiting is told of in the log."""


class CallCallbacks:
    """The callbacks of one call, which run one after the other, in the order they were added."""

    __slots__ = (
        "_callbacks",
        "_ended",
        "_lock",
        "_names",
        "_runner",
        "name",
        "started_at",
        "thread",
    )

    def __init__(self, runner: Callbacks) -> None:
        self.name = ""
        """That of the functions, which says of what kind they are."""
        self.thread = 0
        self.started_at = 0.0
        self._runner = runner
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self._callbacks: list[tuple[contextvars.Context, Callback]] | None = []
        self._ended: list[tuple[contextvars.Context, Callback]] = []

    def add(self, callback: Callback) -> bool:
        """Run a callback, in a copy of the present context, when the call has ended; False if it
        has.
        """
        with self._lock:
            if self._callbacks is None:
                return False
            self._callbacks.append((contextvars.copy_context(), callback))
            # Each once: how often one is added may be the caller's choice, and would make kinds.
            name = _name(callback)
            if name not in self._names:
                self._names.add(name)
                self.name += f", {name}" if self.name else name
            return True

    def end(self) -> None:
        """Hand the callbacks over: the call has ended. Does not wait for any of them."""
        with self._lock:
            self._ended, self._callbacks = self._callbacks or [], None
        if self._ended:
            self._runner.submit(self)

    def run(self) -> None:
        """Run them. What one of them raises is logged, and stops none of the others."""
        callbacks, self._ended = self._ended, []
        for context, callback in callbacks:
            try:
                context.run(callback)
            except BaseException as error:  # noqa: BLE001 - SystemExit too: the others go on
                logs.logger(__name__).error(
                    "a servicer's callback raised", callback=_name(callback), exc_info=error
                )


class _Share:
    """What the callbacks of one kind have of the threads."""

    __slots__ = ("dropped", "is_told", "running", "waiting")

    def __init__(self) -> None:
        self.running: set[CallCallbacks] = set()
        self.waiting: deque[CallCallbacks] = deque()
        self.dropped = 0
        self.is_told = False


class Callbacks:
    """Runs the callbacks of calls that have ended.

    Daemon threads, so that a callback which never returns does not keep the process; they are
    started as they are needed, and never by the serving thread, which only hands over.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for a few look-ups: nothing is waited for under it
        self._idle_or_over = threading.Condition(self._lock)
        self._ready: SimpleQueue[CallCallbacks | None] = SimpleQueue()
        self._shares: dict[str, _Share] = {}
        self._threads = 0
        self._idle = 0
        self._closed = False
        self.kept = _Kept(self)

    def of_call(self) -> CallCallbacks:
        """Return those of a new call, for who learns by itself when the call ends."""
        self._start_thread(at_least_one=True)
        return CallCallbacks(self)

    def submit(self, call: CallCallbacks) -> None:
        """Run what a call has. Called on the serving thread: nothing here waits."""
        with self._lock:
            share = self._shares.get(call.name)
            if share is None:
                share = self._shares[call.name] = _Share()
            if len(share.running) < _SHARE:
                share.running.add(call)
                self._ready.put(call)
            elif len(share.waiting) < _MOST_WAITING:
                share.waiting.append(call)
            else:
                share.dropped += 1
            is_late = self._closed
        if is_late:
            self._start_thread(at_least_one=True)

    def look(self) -> None:
        """Log which callbacks keep others of their kind waiting, once until that is over."""
        now = time.monotonic()
        stuck = []
        with self._lock:
            for name, share in self._shares.items():
                oldest = min(share.running, key=lambda call: call.started_at or now)
                waited = now - (oldest.started_at or now)
                if share.waiting and not share.is_told and waited >= _SLOW:
                    share.is_told = True
                    stuck.append((name, share, oldest))
        for name, share, oldest in stuck:
            logs.logger(__name__).error(
                "a servicer's callbacks do not return, and those of later calls wait",
                callbacks=name,
                seconds=round(now - oldest.started_at, 1),
                running=len(share.running),
                waiting=len(share.waiting),
                dropped=share.dropped,
                stack=stack_of(oldest.thread),
            )

    def close(self, seconds: float) -> None:
        """Wait until all have run, for so many seconds at the most, and let the threads go."""
        with self._lock:
            self._closed = True
            self._idle_or_over.wait_for(lambda: not self._shares, seconds)
            for _ in range(self._threads):
                self._ready.put(None)

    def _start_thread(self, *, at_least_one: bool = False) -> None:
        """Start a thread where none is free, within the bound."""
        with self._lock:
            if self._threads >= (1 if at_least_one else _THREADS) or self._idle:
                return
            self._threads += 1
            self._idle += 1
        thread = threading.Thread(target=self._work, name="callback", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more; the others go on, the first one is needed
            with self._lock:
                self._threads -= 1
                self._idle -= 1
            if at_least_one:
                raise

    def _work(self) -> None:
        while (call := self._ready.get()) is not None:
            with self._lock:
                self._idle -= 1
            self._start_thread()  # before this one may wait
            call.thread, call.started_at = threading.get_ident(), time.monotonic()
            call.run()
            with self._lock:
                self._idle += 1
                self._finish(call)
        with self._lock:
            self._idle -= 1
            self._threads -= 1

    def _finish(self, call: CallCallbacks) -> None:
        share = self._shares[call.name]
        share.running.discard(call)
        if share.waiting:
            following = share.waiting.popleft()
            share.running.add(following)
            self._ready.put(following)
        elif not share.running:
            del self._shares[call.name]
            self._idle_or_over.notify_all()


class _Kept(dict[type, type]):
    """Classes of ``grpc.ServicerContext``, and what a context of each must become before a servicer
    gets it: ``context.__class__ = kept[context.__class__]``. Its ``add_callback`` runs callbacks on
    our threads.

    The class, because a function on the instance would have to refer to it, and every call would be
    left to the garbage collector.
    """

    def __init__(self, runner: Callbacks) -> None:
        super().__init__()
        self._runner = runner
        self._key = f"callbacks of guard {id(runner)}"  # a server may stand behind two guards

    def __missing__(self, kind: type) -> type:
        runner, key = self._runner, self._key

        class Kept(kind):  # type: ignore[misc]
            __slots__ = ()  # of the same layout, or an instance could not change to it

            def add_callback(self, callback: Callback) -> bool:
                calls: CallCallbacks | None = self.__dict__.get(key)
                if calls is None:
                    ours = runner.of_call()
                    calls = self.__dict__.setdefault(key, ours)
                    if calls is ours and not super().add_callback(calls.end):
                        calls.end()  # another thread may have added one meanwhile
                return calls.add(callback)

        Kept.__name__, Kept.__qualname__ = kind.__name__, kind.__qualname__
        self[kind] = self[Kept] = Kept  # kept once, kept for good
        return Kept


def _name(callback: Any) -> str:
    function = getattr(callback, "func", callback)  # of a functools.partial
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', None)}.{name}"
