"""The stacks of all threads, as bounded text for the log: places in code, never values."""

from __future__ import annotations

import sys
import threading
import traceback
from types import FrameType

_MOST_FRAMES = 24
"""The most frames of one thread: the innermost ones."""

_MOST_CHARACTERS = 32_000
"""The most frames of all threads together."""


def stack_of(thread: int) -> str:
    """Return the stack of a thread, by its ``threading.get_ident()``; empty if it has ended."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - a documented function
    return "" if frame is None else _written(frame)


def all_stacks(first: int) -> str:
    """Return the stacks of all threads, ``first`` before the others; threads at the same place are
    listed together.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    places: dict[str, list[str]] = {}
    frames = sys._current_frames()  # noqa: SLF001 - a documented function
    for ident, frame in sorted(frames.items(), key=lambda item: item[0] != first):
        places.setdefault(_written(frame), []).append(names.get(ident, str(ident)))
    text = ""
    for stack, threads in places.items():
        title = threads[0] if len(threads) == 1 else f"{threads[0]} and {len(threads) - 1} more"
        text += f"{title}:\n{stack}"
        if len(text) > _MOST_CHARACTERS:
            return text[:_MOST_CHARACTERS] + "\n(cut off)"
    return text


def _written(frame: FrameType) -> str:
    # ``format_stack`` with a negative limit would still read the lines of all frames.
    return "".join(traceback.format_list(traceback.extract_stack(frame)[-_MOST_FRAMES:]))
