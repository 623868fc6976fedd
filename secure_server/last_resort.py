"""Ends a process whose threads do not end."""

from __future__ import annotations

import os
import threading
import time

from secure_server import logs
from secure_server.guard.stacks import all_stacks


def end_within(seconds: float, status: int) -> None:
    """End the process with this exit status if it has not ended by itself after ``seconds``.

    At exit Python joins every thread of every pool, and a servicer's thread may wait for ever.
    """

    def end() -> None:
        time.sleep(seconds)
        logs.logger(__name__).error(
            "threads that do not end are left behind", stack=all_stacks(threading.get_ident())
        )
        logs.flush()
        os._exit(status)

    threading.Thread(target=end, name="last-resort", daemon=True).start()
