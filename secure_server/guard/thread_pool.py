"""A thread pool that survives a system which starts no more threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class ThreadPool(ThreadPoolExecutor):
    """Keeps running with the threads that it has when the system starts no more.

    grpcio submits calls to its pool on the serving thread. The ``RuntimeError`` that other pools
    raise there (``pids.max``, ``TasksMax``) ends that thread: no call is answered any more.
    """

    def __init__(self, threads: int, *, name: str) -> None:
        """At most ``threads``; one is started at once, so that the pool never has none."""
        super().__init__(threads, thread_name_prefix=name)
        self.submit(int).result()

    # Private: a later Python may not call it. A test checks that it does.
    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:  # the call is in the queue already
            if not self._threads:
                raise
