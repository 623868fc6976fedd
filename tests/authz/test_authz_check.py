"""What `check` finds in a policy is true, and it finds what people do wrong."""

import itertools
import json

import a43_naive
import pytest
from a43_generated import policies
from a43_values import a_peer, a_principal, a_text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secure_server.auth.principal import ANONYMOUS
from secure_server.authz import PolicyError
from secure_server.authz.check import PolicyFindingKind, check

# Two conditions at the most, of few patterns: rules that nearly cover each other.
_some = st.lists(st.sampled_from(["a", "b", "ab", "a*", "*b", "*"]), min_size=1, max_size=2)
_conditions = {
    "paths": st.lists(st.sampled_from(["/a", "/ab", "/a*", "*b", "*"]), min_size=1, max_size=2),
    "headers": st.lists(st.tuples(st.sampled_from("xy"), _some), min_size=1, max_size=2),
    "principals": _some,
    "request_principals": st.lists(st.sampled_from(["a/b", "a", "a*", "*b", "*"]), min_size=1),
    "roles": _some,
    "scopes": _some,
    "claims": st.dictionaries(st.sampled_from("cd"), _some, min_size=1),
}
_small_rules = st.lists(st.sampled_from(sorted(_conditions)), unique=True, max_size=2).flatmap(
    lambda keys: st.fixed_dictionaries({key: _conditions[key] for key in keys})
)
_VALUES = [(), ("a",), ("ab",), ("b", "")]
_CALLS = [
    {
        "method": method,
        "peer": None if names is None else a_peer(uri_sans=names),
        "tls": True,
        "principal": principal,
        "headers": headers,
    }
    for method, names, headers in itertools.product(
        ["/a", "/ab", "/b"],
        [None, ("a",), ("b",), ("ab", "ba")],
        [{}, {"x": "a"}, {"x": "ab", "y": "b"}, {"x": "", "y": "a"}],
    )
    for principal in (
        ANONYMOUS,
        a_principal("", ""),
        *(
            a_principal(
                "b",
                "a",
                roles=frozenset(roles),
                scopes=frozenset(scopes),
                claims={"c": list(roles), "d": list(scopes)},
            )
            for roles, scopes in itertools.product(_VALUES, _VALUES)
        ),
    )
]
_DEAD = {
    PolicyFindingKind.NEVER_MATCHES,
    PolicyFindingKind.NEVER_ALLOWS,
    PolicyFindingKind.SHADOWED,
}


def _check(*allow_rules, deny_rules=(), methods=(), required=()):
    text = a_text(*allow_rules, deny_rules=list(deny_rules))
    options = {"methods": methods, "required": required}
    return check(text, origin="policy.json", known_loggers=frozenset(), **options).findings


def _rule(name="later", paths=None, headers=None, **source):
    request = {}
    if paths is not None:
        request["paths"] = paths
    if headers is not None:
        request["headers"] = [{"key": key, "values": values} for key, values in headers]
    return {"name": name, "source": source, "request": request}


@given(st.lists(_small_rules, max_size=1), st.lists(_small_rules, min_size=1, max_size=2))
@settings(max_examples=300)
def test_a_rule_that_is_called_dead_decides_no_call(deny, allow):
    policy = {
        "name": "p",
        "deny_rules": [_rule(f"d{number}", **rule) for number, rule in enumerate(deny)],
        "allow_rules": [_rule(f"a{number}", **rule) for number, rule in enumerate(allow)],
    }
    findings = check(json.dumps(policy), origin="", known_loggers=frozenset()).findings
    dead = {finding.rule.name for finding in findings if finding.kind in _DEAD}
    for call in _CALLS if dead else ():
        assert a43_naive.decide(policy, **call)[1] not in dead


@given(policies)
@example({"name": "p", "allow_rules": [{"name": "{}"}, {"name": "{0}"}]})
def test_every_valid_policy_can_be_checked(policy):
    report = check(json.dumps(policy, indent=1), origin="", known_loggers=frozenset())
    lines = [finding.line for finding in report.findings]
    assert lines == sorted(lines)


_PATHS = ["/a.S/M", "/b.S/*"]
_EVERYTHING = {
    "paths": _PATHS,
    "headers": [("x", ["a"])],
    "principals": ["spiffe://a/b"],
    "request_principals": ["i/s"],
    "roles": ["r"],
    "scopes": ["s"],
    "claims": {"c": ["v"]},
}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({}, {}),
        ({}, _EVERYTHING),
        (_EVERYTHING, _EVERYTHING),
        *(({key: value}, _EVERYTHING) for key, value in _EVERYTHING.items()),
        ({"paths": ["*"]}, {}),
        ({"paths": ["/a.*"]}, {"paths": ["/a.S/*", "/a.S/M"]}),
        ({"paths": ["*/M"]}, {"paths": ["*S/M", "/a.S/M"]}),
        ({"roles": ["a", "b", "c"]}, {"roles": ["c", "b"]}),
        ({"roles": ["a*"]}, {"roles": ["ab", "ac*", "a"]}),
        ({"roles": ["*"]}, {"roles": ["ab", "ac*", "*c"]}),
        ({"principals": []}, {"principals": ["x"]}),
        ({"request_principals": ["*"]}, {"roles": ["r"]}),
        ({"request_principals": ["*"]}, {"claims": {"c": ["v"]}}),
        ({"claims": {"a.b": ["v*"]}}, {"claims": {"[a][b]": ["vw"], "z": ["*"]}}),
        ({"headers": [("X", ["*"])]}, {"headers": [("x", ["a", "b"]), ("y", ["c"])]}),
    ],
)
def test_a_rule_whose_calls_an_earlier_one_matches_is_shadowed(earlier, later):
    (finding,) = _check(_rule("earlier", **earlier), _rule(**later))
    assert (finding.kind, finding.rule.name) == (PolicyFindingKind.SHADOWED, "later")
    assert [each.name for each in finding.earlier] == ["earlier"]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        *((_EVERYTHING, _EVERYTHING | {key: None}) for key in ("paths", "headers")),
        *(
            (_EVERYTHING, {name: value for name, value in _EVERYTHING.items() if name != key})
            for key in _EVERYTHING
        ),
        ({"paths": ["/a.S/*"]}, {"paths": ["/a.*"]}),
        ({"paths": ["/a.S/*"]}, {"paths": ["/a.S/M", "/b.S/M"]}),
        ({"roles": ["a"]}, {"roles": ["a", "b"]}),
        ({"roles": ["a*"]}, {"roles": ["*a"]}),
        ({"principals": ["*"]}, {"principals": ["a", ""]}),
        ({"request_principals": ["*"]}, {"principals": ["*"]}),
        ({"request_principals": ["i/*"]}, {"roles": ["r"]}),
        ({"roles": ["*"]}, {"scopes": ["s"]}),
        ({"claims": {"c": ["v"]}}, {"claims": {"d": ["v"]}}),
        ({"headers": [("x", ["a"])]}, {"headers": [("x", ["*"])]}),
    ],
)
def test_a_rule_that_may_still_decide_is_not_called_dead(earlier, later):
    assert _check(_rule("earlier", **earlier), _rule(**later)) == ()


def test_an_allow_rule_whose_calls_are_all_denied_names_the_deny_rules():
    report = check(
        """{
  "name": "p",
  "deny_rules": [
    {"name": "no-a", "request": {"paths": ["/a.S/*"]}},
    {"name": "no-b", "request": {"paths": ["/b.S/*"]}}
  ],
  "allow_rules": [
    {"name": "late", "source": {"roles": ["r"]}, "request": {"paths": ["/a.S/M", "/b.S/M"]}}
  ]
}""",
        origin="policy.json",
        known_loggers=frozenset(),
    )
    (finding,) = report.findings
    assert finding.kind is PolicyFindingKind.NEVER_ALLOWS
    assert finding.message == (
        'The allow rule "late" never allows anything: the deny rule "no-a" (line 4) and the deny '
        'rule "no-b" (line 5) refuse all its calls.'
    )
    assert (finding.line, finding.column, finding.is_error) == (8, 5, False)


def test_a_rule_may_be_shadowed_by_a_deny_and_an_allow_rule_together():
    (finding,) = _check(
        _rule("earlier", ["/b.S/M"]),
        _rule("later", ["/a.S/M", "/b.S/M"]),
        deny_rules=[_rule("no", ["/a.S/M"])],
    )
    assert finding.kind is PolicyFindingKind.SHADOWED
    assert [each.rules for each in finding.earlier] == ["deny_rules", "allow_rules"]


def test_an_allow_rule_does_not_shadow_a_deny_rule():
    (finding,) = _check(_rule("everybody"), deny_rules=[_rule("nobody")])
    assert (finding.kind, finding.rule.name) == (PolicyFindingKind.NEVER_ALLOWS, "everybody")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (_rule(request_principals=["alice", "bob"]), 'are "issuer/subject", and no pattern has a'),
        (_rule(headers=[("x", ["a"]), ("X", ["b", "c*"])]), 'two values of the header "x" at once'),
    ],
)
def test_a_rule_that_contradicts_itself_never_decides(rule, reason):
    (finding,) = _check(rule)
    assert finding.kind is PolicyFindingKind.NEVER_MATCHES
    assert reason in finding.message


@pytest.mark.parametrize(
    "rule",
    [
        _rule(request_principals=["alice", "i/*"]),
        _rule(request_principals=["*alice"]),
        _rule(headers=[("x", ["a", "ab"]), ("x", ["b", "ab*"])]),
        _rule(headers=[("x", ["a*"]), ("x", ["*b"])]),
        _rule(paths=["/a.S/*"], principals=["spiffe://a/*"]),
    ],
)
def test_a_rule_that_can_match_is_left_alone(rule):
    assert _check(rule) == ()


@pytest.mark.parametrize(
    ("rule", "pattern"),
    [
        (_rule(paths=["/a.*/M"]), "/a.*/M"),
        (_rule(paths=["*S*"]), "*S*"),
        (_rule(principals=["spiffe://*/b", "spiffe://a/*"]), "spiffe://*/b"),
        (_rule(request_principals=["**"]), "**"),
    ],
)
def test_a_star_that_stands_for_itself_is_pointed_out(rule, pattern):
    (finding,) = _check(rule)
    assert finding.kind is PolicyFindingKind.LITERAL_STAR
    assert finding.message.startswith(f'"{pattern}" has a star that stands for itself.')


def test_a_path_without_its_slash_is_found_without_knowing_the_methods():
    (finding,) = _check(_rule(paths=["/a.S/M", "a.S/N"]))
    assert finding.kind is PolicyFindingKind.NO_SUCH_METHOD
    assert finding.message == ('The path "a.S/N" matches no method: write its leading slash.')


def test_a_path_that_no_known_method_has_is_found_with_its_place_and_what_was_meant():
    text = """{"name": "p", "allow_rules": [
  {"name": "a", "request": {"paths": ["/a.S/*",
    "/a.S/Mehtod", "/b.*", "/grpc.health.v1.Health/Check", "*/Method"]}},
  {"name": "b", "request": {"paths": ["/c.S/M"]}}]}"""
    methods = ["/a.S/Method", "/a.S/Other"]
    report = check(text, origin="p", known_loggers=frozenset(), methods=methods)
    assert [(finding.line, finding.column, finding.message) for finding in report.findings] == [
        (3, 5, 'The path "/a.S/Mehtod" matches no known method. Did you mean "/a.S/Method"?'),
        (3, 20, 'The path "/b.*" matches no known method.'),
        (
            4,
            39,
            'The path "/c.S/M" matches no known method. Nothing is left of the allow rule "b".',
        ),
    ]
    assert {finding.kind for finding in report.findings} == {PolicyFindingKind.NO_SUCH_METHOD}


def test_a_method_that_no_rule_names_is_an_error_only_where_it_has_to_be_named():
    findings = _check(
        _rule(paths=["/a.S/M"]),
        deny_rules=[_rule(paths=["/a.S/Denied"])],
        methods=["/a.S/M", "/a.S/Denied", "/a.S/Mine", "/a.S/Yours"],
        required=["/a.S/Mine"],
    )
    assert [(each.kind, each.is_error, each.line) for each in findings] == [
        (PolicyFindingKind.NO_RULE, True, None),
        (PolicyFindingKind.NO_RULE, False, None),
    ]
    assert findings[0].message == (
        'No rule is about "/a.S/Mine": no caller may call it. Add one; a deny rule says that it is '
        "meant so."
    )


def test_a_policy_that_does_not_parse_cannot_be_checked():
    options = {"audit_loggers": [{"name": "unknown"}]}
    text = a_text({"name": "a"}, audit_logging_options=options)
    with pytest.raises(PolicyError, match="Unknown audit logger"):
        check(text, origin="p", known_loggers=frozenset())
