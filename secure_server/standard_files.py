"""Opens standard input, output and error for a program that was started without them."""

from __future__ import annotations

import os
import sys


def open_missing() -> None:
    """Open ``/dev/null`` for those of standard input, output and error that are closed.

    Call it before anything else is opened: otherwise the first file or connection would become
    standard error.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(descriptor, True)  # noqa: FBT003
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
