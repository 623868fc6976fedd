"""What an operator reads when a policy is wrong: what, where, and what to do."""

import pytest
from a43_values import a_text

from secure_server.authz import Policy, PolicyError


def _error(text, **options):
    with pytest.raises(PolicyError) as caught:
        Policy.parse(text, origin="policy.json", **options)
    return caught.value


def _message(text, **options):
    return str(_error(text, **options))


def test_an_unknown_key_is_shown_with_its_place_its_rule_and_a_suggestion():
    error = _error("""{
  "name": "authz",
  "allow_rules": [
    {"name": "everybody"},
    {
      "name": "admins",
      "source": {"principles": ["spiffe://a.test/admin"]}
    }
  ]
}""")
    assert str(error) == (
        'policy.json:7:18: Unknown key "principles" at $.allow_rules[1].source.principles '
        'in rule "admins". Did you mean "principals"?'
    )
    assert (error.origin, error.line, error.column) == ("policy.json", 7, 18)
    assert error.path == "$.allow_rules[1].source.principles"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("requestPrincipals", "request_principals"),
        ("request-principals", "request_principals"),
        ("Principals", "principals"),
        ("role", "roles"),
        ("scope", "scopes"),
        ("claim", "claims"),
    ],
)
def test_a_key_spelled_as_elsewhere_is_suggested(written, meant):
    text = a_text({"name": "a", "source": {written: ["x"]}})
    assert _message(text).endswith(f'Did you mean "{meant}"?')


def test_a_key_like_no_other_is_answered_with_those_there_are():
    text = a_text({"name": "a", "request": {"methods": ["x"]}})
    assert _message(text).endswith('The keys here are "paths", "headers".')


def test_broken_json_is_shown_with_its_line_and_column():
    error = _error('{\n  "name": "authz",\n  "allow_rules": [}\n}')
    assert str(error) == "policy.json:3:19: The policy is not valid JSON: Expecting value."
    assert (error.line, error.column, error.path) == (3, 19, "$")


def test_text_after_the_policy_is_refused():
    assert "Extra data" in _message(a_text({"name": "a"}) + "{}")


def test_an_empty_allow_list_is_refused_at_its_line():
    assert _message('{\n "name": "authz",\n "allow_rules": []\n}') == (
        'policy.json:3:17: "allow_rules" is empty at $.allow_rules. Add at least one rule.'
    )


def test_missing_allow_rules_are_named():
    assert _message('{"name": "authz"}') == (
        'policy.json:1:1: "allow_rules" is missing at $. Add a list with at least one rule.'
    )


def test_a_repeated_key_is_refused_where_it_is_repeated():
    error = _error("""{
  "name": "authz",
  "deny_rules": [{"name": "d"}],
  "allow_rules": [{"name": "a"}],
  "deny_rules": []
}""")
    assert str(error) == (
        'policy.json:5:3: Key "deny_rules" is given twice at $.deny_rules. Keep one of them.'
    )


def test_a_repeated_key_deep_inside_is_found_too():
    error = _error('{"name": "a", "allow_rules": [{"name": "a", "request": {"x": 1, "x": 2}}]}')
    assert (error.column, error.path) == (65, "$.allow_rules[0].request.x")


@pytest.mark.parametrize("rules", ["deny_rules", "allow_rules"])
def test_two_rules_of_one_name_are_refused(rules):
    text = a_text({"name": "a"}, **{rules: [{"name": "twin"}, {"name": "twin"}]})
    message = _message(text)
    assert f'Another rule of this list is named "twin" at $.{rules}[1].name' in message


def test_a_deny_and_an_allow_rule_may_share_a_name():
    Policy.parse(a_text({"name": "twin"}, deny_rules=[{"name": "twin"}]))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[]", "Found a list where an object belongs at $. Write an object."),
        ("{}", '"name" is missing at $. Give the policy a "name".'),
        ('{"name": ""}', '"name" is empty at $.name.'),
        ('{"name": 123}', "Found a number where a string belongs at $.name. Write a string."),
        (a_text({}), '"name" is missing at $.allow_rules[0]. Give each rule a "name".'),
        (a_text("x"), "Found a string where an object belongs at $.allow_rules[0]."),
        (
            a_text({"name": "a", "source": None}),
            'Found null where an object belongs at $.allow_rules[0].source in rule "a".',
        ),
        (
            a_text({"name": "a", "source": {"principals": None}}),
            "Found null where a list belongs at $.allow_rules[0].source.principals",
        ),
        (
            a_text({"name": "a", "request": {"paths": ["x", True]}}),
            "Found a boolean where a string belongs at $.allow_rules[0].request.paths[1]",
        ),
        (
            a_text({"name": "a", "request": {"headers": [{"key": "k"}]}}),
            '"values" is missing at $.allow_rules[0].request.headers[0] in rule "a".',
        ),
        (
            a_text({"name": "a", "request": {"headers": [{"key": "k", "values": []}]}}),
            '"values" is an empty list at $.allow_rules[0].request.headers[0].values',
        ),
        (
            a_text({"name": "a", "request": {"headers": [{"key": "TE", "values": ["*"]}]}}),
            'Header "TE" cannot be matched at $.allow_rules[0].request.headers[0].key',
        ),
        (
            a_text({"name": "a", "request": {"headers": [{"key": "a b", "values": ["*"]}]}}),
            '"a b" is not a header\'s name at $.allow_rules[0].request.headers[0].key',
        ),
        (
            a_text({"name": "a", "source": {"roles": []}}),
            (
                '"roles" is an empty list at $.allow_rules[0].source.roles in rule "a". '
                'Write the patterns, ["*"] for any value, or leave the key out.'
            ),
        ),
        (a_text({"name": "a", "source": {"claims": {}}}), '"claims" is empty at'),
        (
            a_text({"name": "a", "source": {"claims": {"https://x.test/r": ["*"]}}}),
            (
                '"https://x.test/r" is not a claim\'s name at '
                '$.allow_rules[0].source.claims["https://x.test/r"] in rule "a". '
                'Put unusual names in brackets: "[https://example.com/roles]".'
            ),
        ),
        (
            a_text({"name": "a"}, audit_logging_options={"audit_condition": "ALWAYS"}),
            (
                'Unknown audit condition "ALWAYS" at $.audit_logging_options.audit_condition. '
                "Write one of NONE, ON_DENY, ON_ALLOW, ON_DENY_AND_ALLOW."
            ),
        ),
        (
            a_text({"name": "a"}, audit_logging_options={"audit_logger": []}),
            'Did you mean "audit_loggers"?',
        ),
        (
            a_text({"name": "a"}, audit_logging_options={"audit_loggers": [{"name": "file"}]}),
            (
                'Unknown audit logger "file" at $.audit_logging_options.audit_loggers[0].name. '
                'Known: "stdout_logger"; or set "is_optional".'
            ),
        ),
        (
            a_text({"name": "a"}, audit_logging_options={"audit_loggers": [{}]}),
            'Give each audit logger a "name".',
        ),
        ('{"name": NaN}', "NaN is not a JSON number at $.name. Write a finite number."),
        ('{"name": 1e999}', 'Number "1e999" is too large at $.name.'),
        ('{"name": "\\ud800"}', "The string holds a lone surrogate at $.name."),
        ('{"\\udc00": 1}', 'The key holds a lone surrogate at $["\\udc00"].'),
        ("[" * 65, "The policy is nested deeper than 64 levels. Flatten it."),
    ],
)
def test_what_is_wrong_is_said_with_its_path(text, part):
    assert part in _message(text)


def test_a_huge_policy_is_refused_unread():
    error = _error(" " * (16 * 1024 * 1024 + 1))
    assert str(error) == "policy.json: The policy has 16777217 characters. Keep it to 16777216."
    assert error.line is None


def test_a_long_name_does_not_flood_the_message():
    assert len(_message(a_text({"name": "a", "x" * 100_000: 1}))) < 400


def test_a_half_written_number_in_a_loggers_configuration_is_found():
    text = """{"name": "a", "allow_rules": [{"name": "a"}], "audit_logging_options":
    {"audit_loggers": [{"name": "stdout_logger", "config": {"n": [0, {"m": -Infinity}]}}]}}"""
    error = _error(text)
    assert (error.line, error.column) == (2, 76)
    assert error.path == "$.audit_logging_options.audit_loggers[0].config.n[1].m"
