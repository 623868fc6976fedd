"""Servicers' callbacks (``context.add_callback``), run on the guard's threads.

grpcio runs them on the one thread that serves all calls of a server. A callback that blocks there
blocks every call: grpcio's own health service waits for a lock whose holder sends and so waits for
that very thread, and two callers who open and cancel ``Watch`` deadlock the server.
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
"""The most calls whose callbacks run at once."""

_SHARE = 16
"""The most of one kind: a callback that never returns blocks only calls with the same one."""

_MOST_WAITING = 10_000
"""The most calls of one kind whose callbacks wait; further ones are dropped."""

_SLOW = 5.0
"""Seconds after which a callback that blocks others is logged."""


class CallCallbacks:
    """The callbacks of one call; they run one after the other, in the order of adding."""

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
        """The kind of the callbacks: their functions."""
        self.thread = 0
        self.started_at = 0.0
        self._runner = runner
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self._callbacks: list[tuple[contextvars.Context, Callback]] | None = []
        self._ended: list[tuple[contextvars.Context, Callback]] = []

    def add(self, callback: Callback) -> bool:
        """Run a callback, in a copy of the current context, when the call has ended; False if it
        already has.
        """
        with self._lock:
            if self._callbacks is None:
                return False
            self._callbacks.append((contextvars.copy_context(), callback))
            # Each once: callers may influence how often one is added, and would create new kinds.
            name = _name(callback)
            if name not in self._names:
                self._names.add(name)
                self.name += f", {name}" if self.name else name
            return True

    def end(self) -> None:
        """Queue the callbacks: the call has ended. Returns without waiting for them."""
        with self._lock:
            self._ended, self._callbacks = self._callbacks or [], None
        if self._ended:
            self._runner.submit(self)

    def run(self) -> None:
        """Run them. An exception is logged, and the others still run."""
        callbacks, self._ended = self._ended, []
        for context, callback in callbacks:
            try:
                context.run(callback)
            except BaseException as error:  # noqa: BLE001 - SystemExit too: the others go on
                logs.logger(__name__).error(
                    "a servicer's callback raised", callback=_name(callback), exc_info=error
                )


class _Share:
    """How many threads the callbacks of one kind use, and which calls wait."""

    __slots__ = ("dropped", "is_told", "running", "waiting")

    def __init__(self) -> None:
        self.running: set[CallCallbacks] = set()
        self.waiting: deque[CallCallbacks] = deque()
        self.dropped = 0
        self.is_told = False


class Callbacks:
    """Runs the callbacks of calls that have ended.

    On daemon threads, so that a callback which never returns does not keep the process alive. They
    are started as needed, and never by the serving thread, which only queues.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for a few look-ups: no code blocks under it
        self._idle_or_over = threading.Condition(self._lock)
        self._ready: SimpleQueue[CallCallbacks | None] = SimpleQueue()
        self._shares: dict[str, _Share] = {}
        self._threads = 0
        self._idle = 0
        self._closed = False
        self.kept = _Kept(self)

    def of_call(self) -> CallCallbacks:
        """Return the callbacks of a new call whose adapter calls ``end`` itself."""
        self._start_thread(at_least_one=True)
        return CallCallbacks(self)

    def submit(self, call: CallCallbacks) -> None:
        """Queue a call's callbacks. Called on the serving thread: must not block."""
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
        """Log which callbacks block others of their kind, once per blockage."""
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
        """Wait until all have run, for ``seconds`` at most, and stop the threads."""
        with self._lock:
            self._closed = True
            self._idle_or_over.wait_for(lambda: not self._shares, seconds)
            for _ in range(self._threads):
                self._ready.put(None)

    def _start_thread(self, *, at_least_one: bool = False) -> None:
        """Start a thread if none is free and the bound allows it."""
        with self._lock:
            if self._threads >= (1 if at_least_one else _THREADS) or self._idle:
                return
            self._threads += 1
            self._idle += 1
        thread = threading.Thread(target=self._work, name="callback", daemon=True)
        try:
            thread.start()
        except (
            RuntimeError
        ):  # the system allows no more: the running ones suffice, but the first is needed
            with self._lock:
                self._threads -= 1
                self._idle -= 1
            if at_least_one:
                raise

    def _work(self) -> None:
        while (call := self._ready.get()) is not None:
            with self._lock:
                self._idle -= 1
            self._start_thread()  # before this one may block
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
    """Maps classes of ``grpc.ServicerContext`` to subclasses whose callbacks run on our threads.

    Before a servicer gets a context: ``context.__class__ = kept[context.__class__]``. The class is
    replaced, because a function on the instance would make a reference cycle of every call.
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
        self[kind] = self[Kept] = Kept  # a context that was replaced already stays as it is
        return Kept


def _name(callback: Any) -> str:
    function = getattr(callback, "func", callback)  # of a functools.partial
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', None)}.{name}"
