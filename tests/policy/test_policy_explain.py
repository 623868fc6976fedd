"""``secure-server policy explain``: why was this refused?"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

POLICY = """{
  "name": "example",
  "deny_rules": [
    {"name": "no-interns", "source": {"roles": ["intern"]}}
  ],
  "allow_rules": [
    {
      "name": "billing-reads",
      "source": {"principals": ["spiffe://example.org/client/billing"], "scopes": ["read"]},
      "request": {"paths": ["/pkg.Service/Get"]}
    },
    {"name": "tenant", "source": {"claims": {"org.tenant": ["acme"], "level": ["3"]}}},
    {"name": "users", "source": {"request_principals": ["https://issuer.test/*"]}},
    {"name": "canary", "request": {"headers": [{"key": "X-Env", "values": ["prod", "canary*"]}]}},
    {"name": "names", "source": {"principals": ["*.example.org"]}}
  ]
}
"""


@pytest.fixture
def ask(run: Any, tmp_path: Path) -> Any:
    (tmp_path / "policy.json").write_text(POLICY)

    def ask(*arguments: object) -> Any:
        return run("explain", "policy.json", "--method", "/pkg.Service/Get", *arguments)

    return ask


def failed(done: Any) -> dict[str, list[tuple[str, list[str]]]]:
    """The conditions that failed, with the values found, by the rule's name."""
    assert done.code == 0
    return {
        rule["name"]: [
            (each["key"], each["found"]) for each in rule["conditions"] if not each["holds"]
        ]
        for rule in done.json["rules"]
    }


def test_a_call_that_is_allowed_names_its_rule_and_what_the_others_lacked(ask: Any) -> None:
    arguments = (
        *("--spiffe-id", "spiffe://example.org/client/billing"),
        *("--claims", '{"scope": "read write"}'),
    )
    done = ask(*arguments, "--json")
    assert done.json["decision"] == "allow"
    assert done.json["rule"] == {
        "list": "allow_rules",
        "name": "billing-reads",
        "line": 7,
        "column": 5,
    }
    spiffe_id = "spiffe://example.org/client/billing"
    assert failed(done) == {
        "no-interns": [("source.roles", [])],
        "billing-reads": [],
        "tenant": [("source.claims.org.tenant", []), ("source.claims.level", [])],
        "users": [("source.request_principals", ["/"])],
        "canary": [("request.headers.x-env", [])],
        "names": [("source.principals", [spiffe_id])],
    }
    text = ask(*arguments).out
    assert 'ALLOWED by the allow rule "billing-reads", line 7.' in text
    rows = [line.split("  ") for line in text.splitlines() if line.startswith(("deny ", "allow "))]
    assert len(rows) == 7


def test_a_call_that_no_rule_matches_is_denied_and_shows_each_value_that_was_wrong(
    ask: Any,
) -> None:
    done = ask("--claims", '{"sub": "alice", "org": {"tenant": "umbrella"}, "level": 3}')
    assert done.code == 0
    assert "DENIED: no rule matches." in done.out
    (row,) = [line for line in done.out.splitlines() if "source.claims" in line]
    assert re.split(" {2,}", row) == [
        *("allow", "12", "tenant", "no match"),
        *("source.claims.org.tenant", '"acme"', '"umbrella"'),
    ]


def test_a_deny_rule_decides_before_the_allow_rules_that_match_too(ask: Any) -> None:
    arguments = ("--role", "intern", "--issuer", "https://issuer.test", "--subject", "alice")
    done = ask(*arguments, "--json")
    assert (done.json["decision"], done.json["rule"]["name"]) == ("deny", "no-interns")
    outcomes = {rule["name"]: rule["outcome"] for rule in done.json["rules"]}
    assert (outcomes["no-interns"], outcomes["users"]) == ("decides", "matches")
    text = ask(*arguments).out
    assert 'DENIED by the deny rule "no-interns", line 4.' in text
    assert "matches, after it was decided" in text


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((), None),
        (("--issuer", "https://issuer.test", "--subject", "alice"), "users"),
        (("--claims", '{"iss": "https://issuer.test", "sub": "alice"}'), "users"),
        (("--claims", '{"iss": "https://other.test", "sub": "alice"}'), None),
        (("--claims", '{"iss": "x"}', "--issuer", "https://issuer.test"), "users"),
        (("--claims", '{"roles": ["intern"]}'), "no-interns"),
        (("--claims", '{"roles": "dev intern"}'), "no-interns"),
        (("--claims", '{"org": {"tenant": ["x", "acme"]}, "level": 3}'), "tenant"),
        (("--header", "X-ENV=canary-2"), "canary"),
        (("--header", "x-env=prod", "--header", "x-env=test"), None),
        (("--header", "x-env=canary=1"), "canary"),
        (("--dns-san", "a.example.org"), "names"),
        (("--dns-san", "a.test", "--dns-san", "b.example.org"), "names"),
        (("--spiffe-id", "spiffe://example.org/a", "--dns-san", "a.example.org"), None),
    ],
)
def test_each_word_about_the_caller_counts(
    ask: Any, arguments: tuple[str, ...], rule: str | None
) -> None:
    done = ask(*arguments, "--json")
    found = done.json["rule"]
    assert (None if found is None else found["name"]) == rule
    identity = any(
        not word.startswith(("--header", "--dns", "--spiffe")) for word in arguments[::2]
    )
    assert done.json["call"]["anonymous"] is not identity


def test_an_anonymous_caller_is_shown_as_anonymous(ask: Any) -> None:
    lines = ask().out.splitlines()
    assert lines[:3] == [
        "method     /pkg.Service/Get",
        "peer       no client certificate",
        "caller     anonymous",
    ]


def test_on_a_terminal_it_is_a_table_in_which_names_are_no_markup(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [{"name": "[red]a[/red]", "source": {"roles": ["[bold]"]}}]
    (tmp_path / "policy.json").write_text(json.dumps({"name": "p", "allow_rules": rules}))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    out = run("explain", "policy.json", "--method", "/a").out
    assert "[red]a[/red]" in out
    assert '"[bold]"' in out
    assert "───" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--spiffe-id", "example.org/a"), "'example.org/a' is no SPIFFE ID. "),
        (("--claims", "[1]"), '--claims takes a JSON object, such as {"scope": "read"}.'),
        (("--claims", "{"), '--claims takes a JSON object, such as {"scope": "read"}.'),
        (("--claims", "[" * 100_000), "--claims takes a JSON object"),
        (("--claims", '{"sub": 1}'), "The claim sub is not a text."),
        (("--claims", '{"roles": [1]}'), "The claim roles is neither a text nor a list of texts."),
        (("--header", "x-env"), "--header takes KEY=VALUE, not 'x-env'."),
        (("--header", "=x"), "--header takes KEY=VALUE, not '=x'."),
        (("--method", "Get"), "'Get' is no method: write its full path, /package.Service/Method."),
    ],
)
def test_options_that_describe_no_call_are_a_sentence(
    ask: Any, arguments: tuple[str, ...], message: str
) -> None:
    done = ask(*arguments)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"secure-server: {message}")
    assert done.err.count("\n") == 1


def test_a_policy_that_does_not_parse_is_not_explained(run: Any, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text("{}")
    done = run("explain", "policy.json", "--method", "/a")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith('secure-server: policy.json:1:1: "name" is missing at $.')
