"""The compiled policy decides as the gRFC reads, and no text brings the parser down."""

import json
from contextlib import suppress

import a43_naive
from a43_values import a_peer, a_principal
from hypothesis import example, given
from hypothesis import strategies as st

from secure_server.auth.principal import ANONYMOUS
from secure_server.authz import Policy, PolicyError

# Few and overlapping, so that rules match, miss by one sign, and compete.
_WORDS = ["", "a", "b", "ab", "aba", "ba", "/a", "/a/b", "/a/ba", "a*b", "*", "1", "true"]
_words = st.sampled_from(_WORDS)
_patterns = st.one_of(
    _words,
    _words.map(lambda word: word + "*"),
    _words.map(lambda word: "*" + word),
    _words.map(lambda word: f"*{word}*"),
)
_lists = st.lists(_patterns, max_size=3)
_filled = st.lists(_patterns, min_size=1, max_size=3)
_keys = st.sampled_from(["x", "X-Y", "y"])
_claim_names = st.sampled_from(["a", "b", "a.b", "[a.b]", "[a][b]"])

_sources = st.fixed_dictionaries(
    {},
    optional={
        "principals": _lists,
        "request_principals": _filled,
        "scopes": _filled,
        "roles": _filled,
        "claims": st.dictionaries(_claim_names, _filled, min_size=1, max_size=2),
    },
)
_requests = st.fixed_dictionaries(
    {},
    optional={
        "paths": _lists,
        "headers": st.lists(st.fixed_dictionaries({"key": _keys, "values": _filled}), max_size=2),
    },
)
_rules = st.fixed_dictionaries({}, optional={"source": _sources, "request": _requests})


def _numbered(prefix, rules):
    return [{"name": f"{prefix}{number}", **rule} for number, rule in enumerate(rules)]


_policies = st.builds(
    lambda deny, allow: {
        "name": "p",
        "deny_rules": _numbered("d", deny),
        "allow_rules": _numbered("a", allow),
    },
    st.lists(_rules, max_size=3),
    st.lists(_rules, min_size=1, max_size=6),
)
_scalars = st.one_of(_words, st.none(), st.booleans(), st.integers(0, 2), st.just(0.5))
_claims = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]),
    st.one_of(_scalars, st.lists(_scalars, max_size=3), st.dictionaries(st.just("b"), _scalars)),
)
_principals = st.one_of(
    st.just(ANONYMOUS),
    st.builds(
        a_principal,
        _words,
        _words,
        scopes=st.frozensets(_words, max_size=3),
        roles=st.frozensets(_words, max_size=3),
        claims=_claims,
    ),
)
_sans = st.lists(_words, max_size=2)
_peers = st.one_of(st.none(), st.builds(a_peer, uri_sans=_sans, dns_sans=_sans, subject=_words))


@given(
    policy=_policies,
    method=_words,
    peer=_peers,
    principal=_principals,
    headers=st.dictionaries(st.sampled_from(["x", "x-y"]), _words),
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


@given(policy=_policies, method=_words)
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
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), _patterns),
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


@given(policy=_policies, data=st.data())
def test_a_damaged_policy_parses_or_is_a_policy_error(policy, data):
    text = json.dumps(policy, indent=1)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 5, len(text))))
    middle = data.draw(st.text('{}[]",:*\\ud8n0e1.-NaI ', max_size=3))
    _parse(text[:start] + middle + text[end:])
