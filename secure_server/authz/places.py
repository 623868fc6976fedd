"""Line and column of the values of a JSON text that `document.read` has accepted."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import TypeAlias

Steps: TypeAlias = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t\n\r]*")

# Only steps over text that was decoded before, so the values of numbers do not matter.
_STEPPER = json.JSONDecoder(parse_int=str, parse_float=str)


class Places:
    """Lines and columns of many values of one text.

    A class, because a list of ten thousand rules must be scanned once, not once per rule.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._offsets: dict[Steps, dict[str | int, int]] = {}

    def of(self, *steps: str | int) -> tuple[int, int]:
        """Return line and column, from 1, of the value at these member names and indexes."""
        offset = self._offset(steps)
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def _offset(self, steps: Steps) -> int:
        if not steps:
            return _skip_space(self._text, 0)
        owner, last = steps[:-1], steps[-1]
        if owner not in self._offsets:
            children = _children(self._text, self._offset(owner))
            self._offsets[owner] = {name: offset for name, _, offset in children}
        return self._offsets[owner][last]


def offset_of(text: str, steps: Steps, *, at_key: bool, occurrence: int) -> int:
    """Return the offset of one value, or of its key; several members may have the same name."""
    offset = _skip_space(text, 0)
    for depth, step in enumerate(steps, start=1):
        last = depth == len(steps)
        met = 0
        for name, key_offset, value_offset in _children(text, offset):
            if name == step:
                met += 1
                offset = key_offset if last and at_key else value_offset
                if not last or met == occurrence:
                    break
    return offset


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _children(text: str, offset: int) -> Iterator[tuple[str | int, int, int]]:
    """Yield name, offset and value's offset of each child of the object or list at ``offset``."""
    is_object = text[offset] == "{"
    offset = _skip_space(text, offset + 1)
    number = 0
    while text[offset] not in "]}":
        name: str | int = number
        start = offset
        if is_object:
            name, offset = _STEPPER.raw_decode(text, offset)
            offset = _skip_space(text, _skip_space(text, offset) + len(":"))
        yield name, start, offset
        _, offset = _STEPPER.raw_decode(text, offset)
        offset = _skip_space(text, offset)
        if text[offset] == ",":
            offset = _skip_space(text, offset + 1)
        number += 1


def _skip_space(text: str, offset: int) -> int:
    match = _SPACE.match(text, offset)
    return offset if match is None else match.end()
