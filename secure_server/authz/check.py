"""Finds mistakes in a policy that parses: rules that never decide, paths of no method, …."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from itertools import chain
from typing import Any

from secure_server.authz.cover import EarlierRules, never_matches
from secure_server.authz.document import quoted, read
from secure_server.authz.headers import HANDED_OVER_ONCE, why_never_the_value
from secure_server.authz.index import RuleIndex
from secure_server.authz.parser import parse
from secure_server.authz.patterns import Patterns
from secure_server.authz.places import Places
from secure_server.authz.rule import Rule

_KIND_OF_RULE = {"deny_rules": "deny rule", "allow_rules": "allow rule"}

# The most searches for methods close to a wrong one; each takes milliseconds.
_MAX_HINTS = 20


class PolicyFindingKind(StrEnum):
    """The kind of a finding, for programs."""

    NEVER_MATCHES = "never_matches"
    """A rule that matches no call."""
    NEVER_ALLOWS = "never_allows"
    """An allow rule whose calls deny rules refuse."""
    SHADOWED = "shadowed"
    """A rule whose calls are decided by rules before it."""
    LITERAL_STAR = "literal_star"
    """A star that is not a wildcard."""
    NO_SUCH_METHOD = "no_such_method"
    """A path that no method, or no known method, has."""
    NO_SUCH_VALUE = "no_such_value"
    """A pattern for a binary header that no base64 text matches."""
    REPEATED_HEADER = "repeated_header"
    """A deny rule that a caller evades by sending a header twice."""
    NO_RULE = "no_rule"
    """A method that no caller can call, because no rule names it."""


@dataclass(frozen=True, slots=True)
class RuleReference:
    """Names a rule of the list ``rules``, as in the policy; line and column count from 1."""

    rules: str
    name: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"the {_KIND_OF_RULE[self.rules]} {quoted(self.name)} (line {self.line})"


@dataclass(frozen=True, slots=True)
class PolicyFinding:
    """One mistake. ``line`` and ``column`` are None where no place in the text has it.

    ``earlier`` are the rules that decide all calls of ``rule`` before it. A finding is a warning,
    unless ``is_error``: then the server does not start.
    """

    kind: PolicyFindingKind
    message: str
    line: int | None = None
    column: int | None = None
    rule: RuleReference | None = None
    earlier: tuple[RuleReference, ...] = ()
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, in the order of the text; methods without a rule come last."""

    name: str
    rules: int
    findings: tuple[PolicyFinding, ...]


def check(
    text: str,
    *,
    origin: str,
    known_loggers: frozenset[str],
    methods: Collection[str] = (),
    required: Collection[str] = (),
) -> Report:
    """Check a policy. Raises `PolicyError` where it does not parse.

    ``methods`` are all methods of its server, as full paths; empty where they are not known. A
    method without a rule is an error if it is ``required``, else a warning. Rules that never
    decide are found where single earlier rules match all that they match.
    """
    parsed = parse(text, origin=origin, known_loggers=known_loggers)
    places, root = Places(text), read(text, origin=origin).value
    subjects = [
        _Subject(rule, rules, index, root[rules][index], places)
        for rules, parsed_rules in (
            ("deny_rules", parsed.deny_rules),
            ("allow_rules", parsed.allow_rules),
        )
        for index, rule in enumerate(parsed_rules)
    ]
    findings = chain(
        _dead_rules(subjects),
        *map(_literal_stars, subjects),
        *map(_header_values, subjects),
        _dead_paths(subjects, methods),
    )
    in_order = sorted(findings, key=lambda finding: (finding.line or 0, finding.column or 0))
    index = RuleIndex(subject.rule for subject in subjects)
    without = [method for method in methods if not index.is_about(method)]
    forgotten = (_no_rule(method, is_error=method in required) for method in without)
    return Report(parsed.name, len(subjects), (*in_order, *forgotten))


@dataclass(frozen=True, slots=True)
class _Subject:
    """A rule, and its place in the text."""

    rule: Rule
    rules: str
    index: int
    written: dict[str, Any]
    places: Places

    @property
    def reference(self) -> RuleReference:
        return RuleReference(self.rules, self.rule.name, *self.places.of(self.rules, self.index))

    def patterns(self, part: str, key: str) -> list[str]:
        patterns: list[str] = self.written.get(part, {}).get(key, [])
        return patterns

    def finding(self, kind: PolicyFindingKind, message: str, *steps: str | int) -> PolicyFinding:
        """Make a finding about the value at ``steps`` within the rule."""
        line, column = self.places.of(self.rules, self.index, *steps)
        return PolicyFinding(kind, message, line, column, self.reference)


def _dead_rules(subjects: list[_Subject]) -> Iterator[PolicyFinding]:
    earlier = EarlierRules()
    asked: list[_Subject] = []
    for subject in subjects:
        reason = never_matches(subject.rule)
        covering = earlier.covering(subject.rule)
        if reason is not None:
            message = f"{_named(subject)} never decides: {reason}."
            yield subject.finding(PolicyFindingKind.NEVER_MATCHES, message)
        elif covering is not None:
            yield _shadowed(subject, [asked[position] for position in covering])
        earlier.add(subject.rule)
        asked.append(subject)


def _shadowed(subject: _Subject, covering: list[_Subject]) -> PolicyFinding:
    reference = subject.reference
    earlier = tuple(each.reference for each in covering)
    names, one = " and ".join(map(str, earlier)), len(earlier) == 1
    if subject.rules == "allow_rules" and all(each.rules == "deny_rules" for each in earlier):
        kind = PolicyFindingKind.NEVER_ALLOWS
        what = f"never allows anything: {names} {'refuses' if one else 'refuse'} all its calls"
    else:
        kind = PolicyFindingKind.SHADOWED
        what = f"never decides: {names} {'matches' if one else 'match'} all its calls before it"
    message = f"{_named(subject)} {what}."
    return PolicyFinding(kind, message, reference.line, reference.column, reference, earlier)


def _literal_stars(subject: _Subject) -> Iterator[PolicyFinding]:
    for part, key in (
        ("request", "paths"),
        ("source", "principals"),
        ("source", "request_principals"),
    ):
        for number, pattern in enumerate(subject.patterns(part, key)):
            if _has_literal_star(pattern):
                yield subject.finding(
                    PolicyFindingKind.LITERAL_STAR,
                    f"{quoted(pattern)} has a star that stands for itself. "
                    "Only one at the end, or else at the beginning, is a wildcard.",
                    *(part, key, number),
                )


def _header_values(subject: _Subject) -> Iterator[PolicyFinding]:
    for number, header in enumerate(subject.written.get("request", {}).get("headers", [])):
        key, values = header["key"].lower(), header["values"]
        for place, pattern in enumerate(values):
            if (reason := why_never_the_value(key, pattern)) is not None:
                yield subject.finding(
                    PolicyFindingKind.NO_SUCH_VALUE,
                    f"The header {quoted(key)} never has the value {quoted(pattern)}. {reason}",
                    *("request", "headers", number, "values", place),
                )
        if subject.rules == "deny_rules" and key not in HANDED_OVER_ONCE and "*" not in values:
            yield subject.finding(
                PolicyFindingKind.REPEATED_HEADER,
                f"A caller evades {_named(subject, 'the')} by sending the header {quoted(key)} "
                "twice: its values are compared as one text, joined by commas (gRFC A43). "
                'Deny any value, ["*"], or name the good values in the allow rules instead.',
                *("request", "headers", number, "values"),
            )


def _dead_paths(subjects: list[_Subject], methods: Collection[str]) -> Iterator[PolicyFinding]:
    hints = iter(range(_MAX_HINTS))
    for subject in subjects:
        paths = subject.patterns("request", "paths")
        dead = [number for number, path in enumerate(paths) if _is_dead(path, methods)]
        for number in dead:
            path = paths[number]
            if not path.startswith(("/", "*")):
                message = f"The path {quoted(path)} matches no method: write its leading slash."
            else:
                near = next(hints, None) is not None and get_close_matches(path, methods)
                hint = f" Did you mean {quoted(near[0])}?" if near else ""
                message = f"The path {quoted(path)} matches no known method.{hint}"
            if len(dead) == len(paths):
                message += f" Nothing is left of {_named(subject, 'the')}."
            yield subject.finding(
                PolicyFindingKind.NO_SUCH_METHOD, message, "request", "paths", number
            )


def _is_dead(path: str, methods: Collection[str]) -> bool:
    if not path.startswith(("/", "*")):
        return True
    # gRPC's own services (health, reflection) are added at start and are not in ``methods``.
    if not methods or _has_literal_star(path) or path.startswith("/grpc."):
        return False
    return not Patterns.of([path]).match_any(methods)


def _no_rule(method: str, *, is_error: bool) -> PolicyFinding:
    message = (
        f"No rule is about {quoted(method)}: no caller may call it. "
        "Add one; a deny rule says that it is meant so."
    )
    return PolicyFinding(PolicyFindingKind.NO_RULE, message, is_error=is_error)


def _has_literal_star(pattern: str) -> bool:
    return "*" in (pattern[:-1] if pattern.endswith("*") else pattern[1:])


def _named(subject: _Subject, article: str = "The") -> str:
    return f"{article} {_KIND_OF_RULE[subject.rules]} {quoted(subject.rule.name)}"
