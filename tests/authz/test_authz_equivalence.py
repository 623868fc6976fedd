"""The compiled policy decides as the gRFC reads, and no text brings the parser down."""

import json
from contextlib import suppress

import a43_naive
from a43_generated import patterns, peers, policies, principals, words
from hypothesis import example, given
from hypothesis import strategies as st

from secure_server.authz import Policy, PolicyError


@given(
    policy=policies,
    method=words,
    peer=peers,
    principal=principals,
    headers=st.dictionaries(st.sampled_from(["x", "x-y"]), words),
    tls=st.booleans(),
)
def test_the_compiled_policy_decides_as_the_naive_one(
    policy, method, peer, principal, headers, tls
):
    compiled = Policy.parse(json.dumps(policy))
    call = {"peer": peer, "principal": principal, "tls": tls}
    decision = compiled.decide(method, headers=headers, **call)

    assert (decision.allowed, decision.rule) == a43_naive.decide(
        policy, method, headers=headers, **call
    )
    if not compiled.reads_headers(method):
        assert compiled.decide(method, **call) == decision
    if not compiled.names(method):
        assert not decision.allowed
        assert decision.rule == ""


@given(
    policy=policies,
    method=words,
    peer=peers,
    principal=principals,
    headers=st.dictionaries(st.sampled_from(["x", "x-y"]), words),
    tls=st.booleans(),
)
def test_an_explanation_reports_of_each_rule_what_the_naive_one_finds(
    policy, method, peer, principal, headers, tls
):
    call = {"peer": peer, "principal": principal, "headers": headers, "tls": tls}
    explanation = Policy.parse(json.dumps(policy)).explain(method, **call)
    decided_by = explanation.decided_by

    assert (explanation.allowed, decided_by.name if decided_by else "") == a43_naive.decide(
        policy, method, **call
    )
    rules = [*policy["deny_rules"], *policy["allow_rules"]]
    for rule, report in zip(rules, explanation.reports, strict=True):
        matches = a43_naive.first_rule([rule], method, **call) is not None
        assert (report.name, report.outcome != "no_match") == (rule["name"], matches)
        assert matches is not bool(report.failed)


@given(policy=policies, method=words)
def test_a_method_is_named_by_a_path_or_by_a_rule_without_paths(policy, method):
    rules = policy["deny_rules"] + policy["allow_rules"]
    about = [rule for rule in rules if a43_naive.request_matches(_only_paths(rule), method, {})]
    compiled = Policy.parse(json.dumps(policy))

    assert compiled.names(method) is bool(about)
    assert compiled.reads_headers(method) is any(
        rule.get("request", {}).get("headers") for rule in about
    )


def _only_paths(rule):
    return {"paths": rule.get("request", {}).get("paths", [])}


_json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), patterns),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *("name", "allow_rules", "deny_rules", "source", "request", "paths"),
                    *("headers", "key", "values", "claims", "roles", "principals"),
                    *("audit_logging_options", "audit_loggers", "config", "is_optional"),
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


def _parse(text):
    with suppress(PolicyError):
        Policy.parse(text)


@given(st.text())
@example("")
@example("\ufeff{}")
@example("\ud800")
@example('"\ud800"')
@example('{"name": "\\ud800", "allow_rules": [{"name": "a"}]}')
@example('{"\ud800": 1}')
@example("9" * 5_000)
@example("[" * 200_000)
@example('{"a":' * 200_000)
@example('"' + '\\"' * 200_000)
@example(" " * (16 * 1024 * 1024 + 1))
def test_any_text_parses_or_is_a_policy_error(text):
    _parse(text)


@given(_json_values.map(json.dumps))
def test_any_json_parses_or_is_a_policy_error(text):
    _parse(text)


@given(policy=policies, data=st.data())
def test_a_damaged_policy_parses_or_is_a_policy_error(policy, data):
    text = json.dumps(policy, indent=1)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 5, len(text))))
    middle = data.draw(st.text('{}[]",:*\\ud8n0e1.-NaI ', max_size=3))
    _parse(text[:start] + middle + text[end:])
