"""Two clocks, passed in wherever time matters."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


def _elapsed() -> float:
    # CLOCK_MONOTONIC stands still while a laptop sleeps; tokens do not.
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class Clock:
    """``wall`` is seconds since the epoch and may step; ``elapsed`` is seconds and never steps.

    Timers use ``elapsed``. ``wall`` is for times that another process wrote.
    """

    wall: Callable[[], float] = time.time
    elapsed: Callable[[], float] = _elapsed
