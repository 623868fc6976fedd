"""A value that is fetched ahead of time, on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from secure_base.reloading.refresh_schedule import RefreshSchedule
from secure_base.reloading.reloaded import Reloaded
from secure_base.reloading.status import ReloadStatus

T = TypeVar("T")

_A_MOMENT = 0.5  # seconds


class Fetched(Generic[T]):
    """A ``Watched`` value whose loading may take long, or hang.

    A class with a thread, so that no caller has to fetch what could have been fetched before.
    Callers wait in two cases only: before the first fetch, and for what is not in the value. All of
    them wait for one fetch.
    """

    def __init__(
        self,
        reloaded: Reloaded[T],
        schedule: RefreshSchedule,
        *,
        stale: T,
        release: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``reloaded`` has no version. ``stale`` takes the place of its value once that is
        ``max_stale`` old. ``release`` is called when no more is fetched. ``clock`` is in seconds,
        from anywhere.
        """
        self._reloaded = reloaded
        self._schedule = schedule
        self._stale = stale
        self._release = release
        self._clock = clock
        self._loaded_at = self._asked_at = float("-inf")
        self._attempts = 0
        self._is_loading = self._is_wanted = self._is_closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def value(self) -> T:
        """The last good value, or ``stale`` where there was none for ``max_stale``."""
        is_stale = self._clock() - self._loaded_at > self._schedule.max_stale
        return self._stale if is_stale else self._reloaded.value

    @property
    def status(self) -> ReloadStatus:
        """How the fetches went."""
        return self._reloaded.status

    def subscribe(self, told: Callable[[T], object]) -> Callable[[], None]:
        """Call ``told`` with each new value, on the thread that fetches; return what ends that."""
        return self._reloaded.subscribe(told)

    def start(self) -> None:
        """Begin to fetch."""
        self._is_loading = True
        name = f"fetch {self.status.source}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop fetching, and let callers wait no longer. A fetch under way is hardly waited for."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_A_MOMENT)

    def want(self, waiting: Callable[[], AbstractContextManager[object]] = nullcontext) -> bool:
        """Have the value fetched, unless that was done within ``cooldown``; see ``OnDemand``.

        Returns False where it takes longer than ``patience``.
        """
        with self._changed:
            attempts = self._attempts
            # A fetch that a caller wants and that has not begun yet is as good as one under way.
            if not self._is_loading and not self._is_wanted:
                is_too_soon = self._clock() - self._asked_at < self._schedule.cooldown
                if self._is_closed or is_too_soon:
                    return True
                self._asked_at = self._clock()
                self._is_wanted = True
                self._changed.notify_all()
        with waiting(), self._changed:
            return self._changed.wait_for(
                lambda: self._attempts != attempts or self._is_closed, self._schedule.patience
            )

    def _run(self) -> None:
        while not self._is_closed:
            self._fetch()
            with self._changed:
                has_failed = bool(self.status.reason)
                due = self._schedule.cooldown if has_failed else self._schedule.refresh
                self._changed.wait_for(lambda: self._is_wanted or self._is_closed, due)
                self._is_wanted, self._is_loading = False, True
        self._release()

    def _fetch(self) -> None:
        self._reloaded.look()
        with self._changed:
            if not self.status.reason:
                self._loaded_at = self._clock()
            self._attempts += 1
            self._is_loading = False
            self._changed.notify_all()
        if self.value is self._stale and self._reloaded.value is not self._stale:
            self._reloaded.replace(self._stale)
