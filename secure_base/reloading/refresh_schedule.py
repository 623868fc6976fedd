"""When something that is fetched is fetched again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RefreshSchedule:
    """All in seconds.

    It is fetched every ``refresh``, or ``cooldown`` after a failure; because a caller misses
    something in it, once a ``cooldown`` at the most. The last good one is used until it is
    ``max_stale`` old. A caller waits ``patience`` for a fetch.
    """

    refresh: float
    cooldown: float
    max_stale: float
    patience: float
