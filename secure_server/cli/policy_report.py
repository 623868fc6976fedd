"""What the commands about policies print, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from secure_base.terminal import escape
from secure_server.authz import PolicyError
from secure_server.authz.check import PolicyFinding, Report, RuleReference
from secure_server.authz.document import quoted
from secure_server.authz.explain import Condition, Explanation, Outcome, RuleReport
from secure_server.authz.places import Places
from secure_server.cli.output import line, table
from secure_server.cli.policy_cases import Case, Verdict

# Of a long list of patterns people get the beginning, programs all.
_SHOWN = 2

_LISTS = {"deny_rules": "deny", "allow_rules": "allow"}
_OUTCOMES = {
    Outcome.DECIDES: "decides",
    Outcome.MATCHES: "matches, after it was decided",
    Outcome.NO_MATCH: "no match",
}


def print_report(report: Report, path: Path, methods: int) -> None:
    """One line a finding, ``FILE:LINE:COLUMN: warning: …``, and a last one that counts."""
    for finding in report.findings:
        place = str(path) if finding.line is None else f"{path}:{finding.line}:{finding.column}"
        line(f"{place}: {_severity(finding)}: {finding.message}")
    errors = sum(finding.is_error for finding in report.findings)
    warnings = len(report.findings) - errors
    known = (
        _count(methods, "method")
        if methods
        else "methods unknown (--descriptor-set or --method tells them)"
    )
    line(
        f"{path}: {_count(report.rules, 'rule')}, {known}: "
        f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
    )


def report_object(report: Report) -> dict[str, Any]:
    return {
        "policy": report.name,
        "rules": report.rules,
        "findings": [
            {
                "severity": _severity(finding),
                "kind": finding.kind,
                "line": finding.line,
                "column": finding.column,
                "message": finding.message,
                "rule": None if finding.rule is None else _reference(finding.rule),
                "earlier": [_reference(each) for each in finding.earlier],
            }
            for finding in report.findings
        ],
    }


def error_object(error: PolicyError) -> dict[str, Any]:
    """A policy that does not parse, in the shape of ``report_object``."""
    finding: dict[str, Any] = {
        "severity": "error",
        "kind": "parse_error",
        "line": error.line,
        "column": error.column,
        "message": str(error),
        "rule": None,
        "earlier": [],
    }
    return {"policy": None, "rules": None, "findings": [finding]}


def print_explanation(explanation: Explanation, places: Places) -> None:
    """The call, the decision, and a row for each condition that failed."""
    for title, value in _call(explanation):
        line(f"{title:<9}  {value}")
    line("")
    line(_sentence(explanation, places))
    line("")
    heads = ("list", "line", "rule", "outcome", "condition", "wanted", "found")
    table(heads, (row for each in explanation.reports for row in _rows(each, places)))


def explanation_object(explanation: Explanation, places: Places) -> dict[str, Any]:
    decided_by, principal = explanation.decided_by, explanation.caller.principal
    return {
        "decision": "allow" if explanation.allowed else "deny",
        "rule": None if decided_by is None else _report_reference(decided_by, places),
        "call": {
            "method": explanation.method,
            "peer_names": list(explanation.caller.peer_names),
            "anonymous": principal.is_anonymous,
            "issuer": principal.issuer,
            "subject": principal.subject,
            "roles": sorted(principal.roles),
            "scopes": sorted(principal.scopes),
            "headers": dict(explanation.caller.headers),
        },
        "rules": [
            {
                **_report_reference(report, places),
                "outcome": report.outcome,
                "conditions": [
                    {
                        "key": condition.key,
                        "wanted": list(condition.wanted),
                        "found": list(condition.found),
                        "holds": condition.holds,
                    }
                    for condition in report.conditions
                ],
            }
            for report in explanation.reports
        ],
    }


def print_verdicts(verdicts: Sequence[tuple[Case, Verdict]], path: Path) -> None:
    """Every case that differs, and how many there are."""
    differing = [(case, verdict) for case, verdict in verdicts if not case.is_met_by(verdict)]
    if differing:
        heads = ("case", "expected", "decided")
        table(
            heads,
            ((case.id, _expected(case), _decided(case, verdict)) for case, verdict in differing),
        )
    count = _count(len(verdicts), "case")
    line(f"{path}: {count}, {len(differing) or 'none'} differing")


def verdict_object(case: Case, verdict: Verdict) -> dict[str, Any]:
    return {"id": case.id, "decision": verdict.decision, "matched_rule": verdict.matched_rule}


def difference(case: Case, verdict: Verdict) -> str:
    return escape(f"{case.id}: expected {_expected(case)}, decided {_decided(case, verdict)}")


def _severity(finding: PolicyFinding) -> str:
    return "error" if finding.is_error else "warning"


def _reference(rule: RuleReference) -> dict[str, Any]:
    return {"list": rule.rules, "name": rule.name, "line": rule.line, "column": rule.column}


def _report_reference(report: RuleReport, places: Places) -> dict[str, Any]:
    line_, column = places.of(report.rules, report.index)
    return {"list": report.rules, "name": report.name, "line": line_, "column": column}


def _call(explanation: Explanation) -> Iterator[tuple[str, str]]:
    caller = explanation.caller
    principal = caller.principal
    yield "method", explanation.method
    yield "peer", ", ".join(name or "no client certificate" for name in caller.peer_names)
    if principal.is_anonymous:
        yield "caller", "anonymous"
        return
    who = f"{principal.issuer}/{principal.subject}"
    yield "caller", "somebody without iss and sub" if who == "/" else who
    yield "roles", ", ".join(sorted(principal.roles)) or "none"
    yield "scopes", ", ".join(sorted(principal.scopes)) or "none"


def _sentence(explanation: Explanation, places: Places) -> str:
    report = explanation.decided_by
    if report is None:
        return "DENIED: no rule matches."
    place = f"{_LISTS[report.rules]} rule {quoted(report.name)}"
    verb = "ALLOWED" if explanation.allowed else "DENIED"
    return f"{verb} by the {place}, line {places.of(report.rules, report.index)[0]}."


def _rows(report: RuleReport, places: Places) -> Iterator[tuple[str, ...]]:
    number = str(places.of(report.rules, report.index)[0])
    rule = (_LISTS[report.rules], number, report.name, _OUTCOMES[report.outcome])
    if not report.failed:
        yield (*rule, "", "", "")
    for condition in report.failed:
        found = ", ".join(map(quoted, condition.found)) or "nothing"
        yield (*rule, condition.key, _wanted(condition), found)


def _wanted(condition: Condition) -> str:
    shown = ", ".join(map(quoted, condition.wanted[:_SHOWN]))
    more = len(condition.wanted) - _SHOWN
    return f"{shown}, and {more} more" if more > 0 else shown


def _expected(case: Case) -> str:
    rule = case.matched_rule if case.rule is None else case.rule
    return case.expect if rule is None else f"{case.expect} by {rule}"


def _decided(case: Case, verdict: Verdict) -> str:
    if verdict.decision is None:
        return "nothing: the policy parses, and nothing is asked of it"
    if verdict.why:
        return f"{verdict.decision}: {verdict.why}"
    rule = verdict.rule if case.matched_rule is None else verdict.matched_rule
    return f"{verdict.decision} by {rule or 'no rule'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
