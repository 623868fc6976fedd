"""Whether one rule provably matches every call that another matches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from secure_server.authz.patterns import Patterns
from secure_server.authz.rule import Rule

# Kind and text of a path pattern, or of a condition on the caller.
_Key: TypeAlias = tuple[str, str]

_EXACT, _PREFIX, _SUFFIX = "=", "^", "$"
_ANY: _Key = ("", "")
_ANYBODY = Patterns.of(["*"])
_FILED_BY = ("principals", "request_principals", "scopes", "roles")


class EarlierRules:
    """The earlier rules, indexed by paths and conditions that a rule covered by them must have.

    A class, because comparing each of ten thousand rules with all those before it takes minutes.
    """

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._filed: dict[_Key, defaultdict[_Key, list[int]]] = {}
        self._lengths: dict[str, set[int]] = {_PREFIX: set(), _SUFFIX: set()}

    def add(self, rule: Rule) -> None:
        position = len(self._rules)
        self._rules.append(rule)
        for path in _path_keys(rule):
            kind, text = path
            if kind in self._lengths:
                self._lengths[kind].add(len(text))
            filed = self._filed.setdefault(path, defaultdict(list))
            for key in _filed_under(rule):
                filed[key].append(position)

    def covering(self, rule: Rule) -> tuple[int, ...] | None:
        """Return for each path of ``rule`` the first rule that covers it, by the order of adding.

        None where no single rule covers some path; covering by several together is not found.
        """
        keys = tuple(_sought_under(rule))
        found = set()
        for path in _path_keys(rule):
            candidates = {
                position
                for wider in self._wider(path)
                if wider in self._filed
                for key in keys
                for position in self._filed[wider].get(key, ())
            }
            covering = [each for each in candidates if _covers(self._rules[each], rule)]
            if not covering:
                return None
            found.add(min(covering))
        return tuple(sorted(found))

    def _wider(self, path: _Key) -> Iterator[_Key]:
        """Yield the patterns that match everything that ``path`` matches."""
        kind, text = path
        yield _ANY
        if kind == _EXACT:
            yield path
        if kind in {_EXACT, _PREFIX}:
            yield from ((_PREFIX, text[:n]) for n in self._lengths[_PREFIX] if n <= len(text))
        if kind in {_EXACT, _SUFFIX}:
            yield from ((_SUFFIX, text[-n:]) for n in self._lengths[_SUFFIX] if n <= len(text))


def never_matches(rule: Rule) -> str | None:
    """Return why no call can match, or None where one may."""
    who = rule.request_principals
    if who is not None and _is_exact(who) and not any("/" in each for each in who.exact):
        return '"request_principals" are "issuer/subject", and no pattern has a slash'
    for position, (key, patterns) in enumerate(rule.headers):
        for other, others in rule.headers[position + 1 :]:
            if key == other and (_disjoint(patterns, others) or _disjoint(others, patterns)):
                return f'it wants two values of the header "{key}" at once'
    return None


def _path_keys(rule: Rule) -> Iterator[_Key]:
    # "*" is any path: none is empty (RFC 9113, section 8.3.1).
    if rule.paths is None or rule.paths.present:
        yield _ANY
    if rule.paths is not None:
        yield from ((_EXACT, path) for path in rule.paths.exact)
        yield from ((_PREFIX, prefix) for prefix in rule.paths.prefixes)
        yield from ((_SUFFIX, suffix) for suffix in rule.paths.suffixes)


def _filed_under(rule: Rule) -> Iterator[_Key]:
    """Yield the keys to file a rule under: the texts of its first condition on the caller."""
    for name in _FILED_BY:
        patterns: Patterns | None = getattr(rule, name)
        if patterns is not None:
            if _is_exact(patterns):
                yield from ((name, text) for text in patterns.exact)
            else:
                yield name, "*"
            return
    yield _ANY


def _sought_under(rule: Rule) -> Iterator[_Key]:
    """Yield the keys under which every rule that covers this one is filed."""
    yield _ANY
    for name in _FILED_BY:
        patterns: Patterns | None = getattr(rule, name)
        if patterns is not None:
            yield name, "*"
            yield from ((name, text) for text in sorted(patterns.exact)[:1])
    if rule.request_principals is None and _needs_somebody(rule):
        yield "request_principals", "*"


def _covers(wide: Rule, narrow: Rule) -> bool:
    """Whether ``wide`` matches every caller with headers that ``narrow`` matches."""
    return (
        _is_within(wide.roles, narrow.roles)
        and _is_within(wide.scopes, narrow.scopes)
        and _is_within(wide.principals, narrow.principals)
        and (
            _is_within(wide.request_principals, narrow.request_principals)
            # A rule requiring scopes, roles or claims never matches the anonymous principal.
            or (wide.request_principals == _ANYBODY and _needs_somebody(narrow))
        )
        and _each_is_met(wide.headers, narrow.headers)
        and _each_is_met(wide.claims, narrow.claims)
    )


def _is_within(wide: Patterns | None, narrow: Patterns | None) -> bool:
    return wide is None or (narrow is not None and wide.covers(narrow))


def _each_is_met(
    wide: Iterable[tuple[Any, Patterns]], narrow: Iterable[tuple[Any, Patterns]]
) -> bool:
    return all(
        any(name == wanted and patterns.covers(others) for name, others in narrow)
        for wanted, patterns in wide
    )


def _needs_somebody(rule: Rule) -> bool:
    conditions = (rule.request_principals, rule.scopes, rule.roles)
    return bool(rule.claims) or any(each is not None for each in conditions)


def _is_exact(patterns: Patterns) -> bool:
    return not (patterns.prefixes or patterns.suffixes or patterns.present)


def _disjoint(patterns: Patterns, others: Patterns) -> bool:
    return _is_exact(patterns) and not any(map(others.match, patterns.exact))
