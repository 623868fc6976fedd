"""The pattern language of gRFC A43: exact, ``prefix*``, ``*suffix`` and ``*`` (not empty)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns, of which one must match. Case-sensitive; an inner ``*`` matches only itself."""

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    present: bool

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Patterns:
        exact: set[str] = set()
        prefixes: dict[str, None] = {}
        suffixes: dict[str, None] = {}
        present = False
        for pattern in patterns:
            # In grpc-go's order: a pattern with a star at either end is a prefix with a star.
            if pattern == "*":
                present = True
            elif pattern.endswith("*"):
                prefixes[pattern[:-1]] = None
            elif pattern.startswith("*"):
                suffixes[pattern[1:]] = None
            else:
                exact.add(pattern)
        return cls(frozenset(exact), tuple(prefixes), tuple(suffixes), present)

    def match(self, value: str) -> bool:
        return (
            value in self.exact
            or (self.present and value != "")
            or value.startswith(self.prefixes)
            or value.endswith(self.suffixes)
        )

    def match_any(self, values: Collection[str]) -> bool:
        # Most patterns are exact: then one look-up per value is enough.
        if not self.exact.isdisjoint(values):
            return True
        if not (self.prefixes or self.suffixes or self.present):
            return False
        return any(map(self.match, values))

    def covers(self, other: Patterns) -> bool:
        """Whether for each pattern of ``other`` one of these matches all that it matches.

        False where only several of these together do. No affix is empty: that is ``*``.
        """
        return (
            all(map(self.match, other.exact))
            and all(self.present or each.startswith(self.prefixes) for each in other.prefixes)
            and all(self.present or each.endswith(self.suffixes) for each in other.suffixes)
            and (self.present or not other.present)
        )

    def written(self) -> tuple[str, ...]:
        """Return the patterns as a policy writes them, without repetitions; not in file order."""
        return (
            *sorted(self.exact),
            *(f"{prefix}*" for prefix in self.prefixes),
            *(f"*{suffix}" for suffix in self.suffixes),
            *(("*",) if self.present else ()),
        )
