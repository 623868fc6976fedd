"""Rules indexed by the method that they match."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from heapq import merge
from typing import TypeAlias

from secure_server.authz.rule import Caller, Rule

# Positions in file order, smallest first.
_Positions: TypeAlias = tuple[int, ...]
_ByAffix: TypeAlias = Mapping[str, _Positions]


class RuleIndex:
    """A list of rules in file order, immutable once built.

    A class, because ten thousand rules must not cost a call more than ten: exact paths are one
    look-up, prefixes and suffixes one per length in use.
    """

    __slots__ = ("_any", "_any_not_empty", "_exact", "_prefixes", "_rules", "_suffixes")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        exact: defaultdict[str, list[int]] = defaultdict(list)
        prefixes: defaultdict[str, list[int]] = defaultdict(list)
        suffixes: defaultdict[str, list[int]] = defaultdict(list)
        everywhere: list[int] = []
        present: list[int] = []
        for position, rule in enumerate(self._rules):
            if rule.paths is None:
                everywhere.append(position)
                present.append(position)
                continue
            if rule.paths.present:
                present.append(position)
            for path in rule.paths.exact:
                exact[path].append(position)
            for prefix in rule.paths.prefixes:
                prefixes[prefix].append(position)
            for suffix in rule.paths.suffixes:
                suffixes[suffix].append(position)
        self._any = tuple(everywhere)
        self._any_not_empty = tuple(present)
        self._exact = {path: tuple(positions) for path, positions in exact.items()}
        self._prefixes = _by_length(prefixes)
        self._suffixes = _by_length(suffixes)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    def first_match(self, method: str, caller: Caller) -> Rule | None:
        """Return the first rule in file order that matches ``method`` and ``caller``."""
        groups = self._groups(method)
        for position in groups[0] if len(groups) == 1 else merge(*groups):
            rule = self._rules[position]
            if rule.match(caller):
                return rule
        return None

    def is_about(self, method: str) -> bool:
        """Whether some rule's paths match ``method``."""
        return bool(self._groups(method))

    def _groups(self, method: str) -> list[_Positions]:
        groups = [self._any_not_empty if method else self._any, self._exact.get(method, ())]
        for length, by_prefix in self._prefixes:
            if length > len(method):
                break
            groups.append(by_prefix.get(method[:length], ()))
        for length, by_suffix in self._suffixes:
            if length > len(method):
                break
            groups.append(by_suffix.get(method[-length:], ()))
        return [group for group in groups if group]


def _by_length(affixes: Mapping[str, list[int]]) -> tuple[tuple[int, _ByAffix], ...]:
    tables: defaultdict[int, dict[str, _Positions]] = defaultdict(dict)
    for affix, positions in affixes.items():
        tables[len(affix)][affix] = tuple(positions)
    return tuple(sorted(tables.items()))
