"""The streams that are open, and the threads that serve them."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol


class OpenStream(Protocol):
    """A stream that was let in; ``unattended`` if it stays open though no thread serves it."""

    unattended: bool

    def serve(self) -> None: ...

    def end(self) -> None: ...


class Streams:
    """Serves streams on threads of their own, and can end those that are still open.

    Full means no, at once: nothing queues here. So idle streams can neither starve unary calls nor
    hold back a refusal.
    """

    def __init__(self, threads: int) -> None:
        """Serve this many streams at once."""
        self._free = threading.Semaphore(threads)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="stream")
        self._open: set[OpenStream] = set()

    def __len__(self) -> int:
        return len(self._open)

    def try_serve(self, stream: OpenStream, closed: Callable[[Callable[[], None]], bool]) -> bool:
        """Serve the stream in the caller's context on a free thread; False where there is none.

        ``closed`` registers a function to be called when the call has ended, as
        ``ServicerContext.add_callback`` does.
        """
        if not self._free.acquire(blocking=False):
            return False
        self._open.add(stream)
        if not closed(lambda: self._open.discard(stream)):
            self._open.discard(stream)  # the caller has hung up already
        context = contextvars.copy_context()
        self._executor.submit(self._run, context, stream.serve)
        return True

    def _run(self, context: contextvars.Context, serve: Callable[[], None]) -> None:
        try:
            context.run(serve)
        finally:
            self._free.release()

    def end_all(self) -> None:
        """End what is open now."""
        for stream in tuple(self._open):
            stream.end()

    def end_unattended(self) -> None:
        """End what is open now and would never end by itself."""
        for stream in tuple(self._open):
            if stream.unattended:
                stream.end()

    def close(self) -> None:
        """Let the threads go once they are idle; wait for none."""
        self._executor.shutdown(wait=False)
