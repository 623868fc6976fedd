"""What can be wrong with a policy."""

from __future__ import annotations


class PolicyError(ValueError):
    """A policy text that cannot be used; nothing of it is in force.

    ``str()`` is the whole message, ready for a log or a terminal. ``line`` and ``column`` count
    from 1 (columns in characters) and are None where no place is to blame; ``path`` is the
    JSONPath (RFC 9535) of the value to blame, ``$`` for the whole document.
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
    """A header that no call brings to a policy, or not as it was described."""
