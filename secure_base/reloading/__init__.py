"""Values that change while a program runs: loaded again as their source changes, the last good one
kept where that fails.

A value is handed out as a ``Watched``. ``Reloaded`` is one that is read from files, ``Fetched`` one
that is fetched on a thread of its own, ``Static`` one that never changes. ``Reloads`` knows every
source of a server: it looks at the files, and says which sources are not as they should be.
"""

from secure_base.reloading.fetched import Fetched
from secure_base.reloading.follower import Followed, Follower
from secure_base.reloading.refresh_schedule import RefreshSchedule
from secure_base.reloading.reloaded import Reloaded
from secure_base.reloading.reloads import Reloads
from secure_base.reloading.signature import signature
from secure_base.reloading.status import Log, ReloadStatus
from secure_base.reloading.watched import OnDemand, Static, Watched

__all__ = [
    "Fetched",
    "Followed",
    "Follower",
    "Log",
    "OnDemand",
    "RefreshSchedule",
    "ReloadStatus",
    "Reloaded",
    "Reloads",
    "Static",
    "Watched",
    "signature",
]
