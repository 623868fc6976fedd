"""The errors of policies."""

from __future__ import annotations


class PolicyError(ValueError):
    """A policy text cannot be used; no part of it is in force.

    ``str()`` is the whole message, ready for a log or a terminal. ``line`` and ``column`` count
    from 1 (columns in characters) and are None where the error has no place; ``path`` is the
    JSONPath (RFC 9535) of the wrong value, ``$`` for the whole document.
    """

    def __init__(
        self,
        message: str,
        *,
        origin: str,
        line: int | None = None,
        column: int | None = None,
        path: str = "$",
    ) -> None:
        place = origin if line is None else f"{origin}:{line}:{column}"
        super().__init__(f"{place}: {message}")
        self.origin = origin
        self.line = line
        self.column = column
        self.path = path


class HeaderError(ValueError):
    """A header that no policy ever sees, or not with this value."""
