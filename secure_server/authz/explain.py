"""Why a call was allowed or denied: every rule, condition by condition."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from secure_server.auth.claim_path import ClaimPath, claim_path, claim_texts
from secure_server.authz.patterns import Patterns
from secure_server.authz.rule import Caller, Rule


class Outcome(StrEnum):
    """The outcome of one rule. Rules that match after the one that ``DECIDES`` are ``MATCHES``."""

    DECIDES = "decides"
    MATCHES = "matches"
    NO_MATCH = "no_match"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a rule: ``wanted`` patterns against the values ``found`` in the call.

    ``key`` is its place in the policy, such as ``source.roles`` or ``source.claims.tenant``.
    """

    key: str
    wanted: tuple[str, ...]
    found: tuple[str, ...]
    holds: bool


@dataclass(frozen=True, slots=True)
class RuleReport:
    """One rule of the list ``rules``: ``deny_rules`` or ``allow_rules``; ``index`` is from 0."""

    rules: str
    index: int
    name: str
    outcome: Outcome
    conditions: tuple[Condition, ...]

    @property
    def failed(self) -> tuple[Condition, ...]:
        return tuple(condition for condition in self.conditions if not condition.holds)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with its reasons. ``reports`` has all rules, in the order of evaluation."""

    method: str
    caller: Caller
    allowed: bool
    reports: tuple[RuleReport, ...]

    @property
    def decided_by(self) -> RuleReport | None:
        """The rule that decided; None where no rule matched and the call is denied."""
        return next((each for each in self.reports if each.outcome is Outcome.DECIDES), None)


def explain(
    deny_rules: Iterable[Rule], allow_rules: Iterable[Rule], method: str, caller: Caller
) -> Explanation:
    reports: list[RuleReport] = []
    decided: str | None = None
    for key, rules in (("deny_rules", deny_rules), ("allow_rules", allow_rules)):
        for index, rule in enumerate(rules):
            conditions = tuple(_conditions(rule, method, caller))
            outcome = Outcome.NO_MATCH
            if all(condition.holds for condition in conditions):
                outcome = Outcome.DECIDES if decided is None else Outcome.MATCHES
                decided = decided or key
            reports.append(RuleReport(key, index, rule.name, outcome, conditions))
    return Explanation(method, caller, decided == "allow_rules", tuple(reports))


def _conditions(rule: Rule, method: str, caller: Caller) -> Iterator[Condition]:
    principal = caller.principal
    if rule.paths is not None:
        yield _condition("request.paths", rule.paths, (method,))
    for key, patterns in rule.headers:
        value = caller.headers.get(key)
        yield _condition(f"request.headers.{key}", patterns, () if value is None else (value,))
    if rule.principals is not None:
        yield _condition("source.principals", rule.principals, caller.peer_names)
    # The anonymous principal has no values, as in `Rule.match`.
    is_authenticated = not principal.is_anonymous
    who = (f"{principal.issuer}/{principal.subject}",)
    for key, wanted, values in (
        ("request_principals", rule.request_principals, who),
        ("scopes", rule.scopes, sorted(principal.scopes)),
        ("roles", rule.roles, sorted(principal.roles)),
    ):
        if wanted is not None:
            yield _condition(f"source.{key}", wanted, values if is_authenticated else ())
    for path, patterns in rule.claims:
        texts = claim_texts(principal.claims, path) if is_authenticated else ()
        yield _condition(f"source.claims.{_claim_name(path)}", patterns, texts)


def _condition(key: str, patterns: Patterns, found: Collection[str]) -> Condition:
    return Condition(key, patterns.written(), tuple(found), patterns.match_any(found))


def _claim_name(path: ClaimPath) -> str:
    dotted = ".".join(path)
    return dotted if claim_path(dotted) == path else "".join(f"[{member}]" for member in path)
