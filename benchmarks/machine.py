"""Cores and CPU clocks of this machine (Linux)."""

from __future__ import annotations

import os
import time


def cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def server_core() -> int | None:
    """Return the one core for the servers; None where there is a single core for everything."""
    available = cores()
    return available[0] if len(available) > 1 else None


def stay_away_from(core: int | None) -> None:
    """Keep this process, with threads started later, off that core."""
    if core is not None:
        os.sched_setaffinity(0, set(cores()) - {core})


def move_to(core: int | None) -> None:
    """Run on that core only, with threads started later."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that a process has used, all its threads together.

    This is ``clock_getcpuclockid(3)``, which Python does not have: the kernel writes the clock of
    another process as the complement of its id, shifted over the kind of clock (2 is the
    scheduler's own, in nanoseconds; /proc/PID/stat counts hundredths of a second).
    """
    return time.clock_gettime((~pid << 3) | 2)
