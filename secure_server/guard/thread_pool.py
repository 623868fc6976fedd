"""A pool of threads for a system that may have no more of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class ThreadPool(ThreadPoolExecutor):
    """Goes on with the threads that it has, where the system starts no other.

    grpcio hands calls to its pool on the serving thread. The ``RuntimeError`` that a pool raises
    there (``pids.max``, ``TasksMax``) ends that thread, and with it all calls for good.
    """

    def __init__(self, threads: int, *, name: str) -> None:
        """``threads`` at the most; one is started at once, for there must be one to go on with."""
        super().__init__(threads, thread_name_prefix=name)
        self.submit(int).result()

    # Private: where a later Python does not call it, a pool is like any other. A test says so.
    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:  # what was submitted is in the queue already
            if not self._threads:
                raise
