"""The streams that are open, and the threads that serve them."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Protocol

from secure_server.guard.thread_pool import ThreadPool


class PooledStream(Protocol):
    """An admitted stream; ``non_blocking`` if it stays open without a thread."""

    non_blocking: bool

    def serve(self) -> None: ...

    def end(self) -> None: ...


class StreamPool:
    """The threads that serve streams, shared by successive servers.

    A full pool refuses at once and queues nothing. So idle streams can neither starve unary calls
    nor delay a refusal.
    """

    def __init__(self, threads: int) -> None:
        """Serve this many streams at once."""
        self._free = threading.Semaphore(threads)
        self._executor = ThreadPool(threads, name="stream")
        self._senders = ThreadPool(threads, name="send")
        self._groups: set[ServerStreams] = set()

    def __len__(self) -> int:
        return sum(len(group) for group in tuple(self._groups))

    def group(self) -> ServerStreams:
        """Return a group for the streams of one server."""
        group = ServerStreams(self)
        self._groups.add(group)
        return group

    def forget(self, group: ServerStreams) -> None:
        """Forget a group whose server has stopped."""
        self._groups.discard(group)

    def try_run(self, serve: Callable[[], None]) -> bool:
        """Run a function in the caller's context on a free thread; False where none is free."""
        if not self._free.acquire(blocking=False):
            return False
        self._executor.submit(self._run, contextvars.copy_context(), serve)
        return True

    def _run(self, context: contextvars.Context, serve: Callable[[], None]) -> None:
        try:
            context.run(serve)
        finally:
            self._free.release()

    def run_later(self, send: Callable[[], None]) -> None:
        """Run a function on one of the threads for sending, when one is free."""
        with contextlib.suppress(RuntimeError):  # closed: the calls are over too
            self._senders.submit(send)

    def close(self) -> None:
        """Stop the threads once they are idle, without waiting."""
        self._executor.shutdown(wait=False)
        self._senders.shutdown(wait=False)


class ServerStreams:
    """The open streams of one server, to end them together."""

    def __init__(self, streams: StreamPool) -> None:
        self._streams = streams
        self._open: set[PooledStream] = set()

    def __len__(self) -> int:
        return len(self._open)

    def try_serve(self, stream: PooledStream, closed: Callable[[Callable[[], None]], bool]) -> bool:
        """Serve the stream on a free thread; False where none is free.

        ``closed`` registers a function to be called when the call has ended, as
        ``ServicerContext.add_callback`` does.
        """
        self._open.add(stream)
        if not self._streams.try_run(stream.serve):
            self._open.discard(stream)
            return False
        if not closed(lambda: self._open.discard(stream)):
            self._open.discard(stream)  # the caller has hung up already
        return True

    def run_later(self, send: Callable[[], None]) -> None:
        """Do as ``StreamPool.run_later`` does."""
        self._streams.run_later(send)

    def end_all(self) -> None:
        """End all open streams."""
        for stream in tuple(self._open):
            stream.end()

    def end_non_blocking(self) -> None:
        """End the open streams that would never end by themselves."""
        for stream in tuple(self._open):
            if stream.non_blocking:
                stream.end()
