"""``secure-server policy test``: a table of what is expected, for CI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parents[1] / "vectors" / "a43_cases.json"

POLICY = """{
  "name": "example",
  "deny_rules": [{"name": "no-interns", "source": {"roles": ["intern"]}}],
  "allow_rules": [
    {
      "name": "reads",
      "source": {"principals": ["spiffe://example.org/client/billing"], "scopes": ["read"]},
      "request": {"paths": ["/pkg.Service/Get"], "headers": [{"key": "x-env", "values": ["a,b"]}]}
    },
    {"name": "named", "source": {"principals": ["*.example.org"]}},
    {"name": "alice", "source": {"request_principals": ["https://issuer.test/alice"]}},
    {"name": "level", "source": {"claims": {"level": ["3"]}}}
  ]
}
"""

CASES = """\
- id: all conditions of a rule
  method: /pkg.Service/Get
  spiffe_id: spiffe://example.org/client/billing
  scopes: [read]
  headers: {X-Env: [a, b]}
  expect: allow
  rule: reads
- {id: one header, method: /pkg.Service/Get, headers: {x-env: a}, expect: deny}
- id: deny before allow
  method: /pkg.Service/Get
  dns_sans: [a.example.org]
  roles: [dev, intern]
  expect: deny
  rule: no-interns
- {id: names, method: /a, dns_sans: [a.example.org], expect: allow, rule: named}
- {id: alice, method: /a, issuer: "https://issuer.test", subject: alice, expect: allow}
- {id: claims, method: /a, claims: {level: 3, roles: [x]}, expect: allow, rule: level}
- {id: claims too, method: /a, claims: {level: 3, roles: [intern]}, expect: deny}
- {id: anonymous, method: /a, expect: deny}
"""


@pytest.fixture
def test(run: Any, tmp_path: Path) -> Any:
    (tmp_path / "policy.json").write_text(POLICY)

    def test(cases: str, *arguments: object, name: str = "cases.yaml") -> Any:
        (tmp_path / name).write_text(cases)
        return run("test", "policy.json", name, *arguments)

    return test


def test_the_vectors_come_out_right_through_the_command() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("secure-server"), "policy", "test", "--json", VECTORS],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    answers = {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}
    cases = json.loads(VECTORS.read_text())["cases"]
    assert list(answers) == [case["id"] for case in cases]
    assert len(cases) == 73
    for case in cases:
        answer = answers[case["id"]]
        assert set(answer) == {"id", "decision", "matched_rule"}
        assert answer["decision"] == case["expect"]
        if "matched_rule" in case:
            assert answer["matched_rule"] == case["matched_rule"]
        if case["expect"] == "parse_error":
            assert answer["matched_rule"] is None
        if case["expect"] == "allow":
            assert answer["matched_rule"].startswith(f"{case['policy']['name']}_")


def test_cases_that_are_as_expected_are_status_0(test: Any) -> None:
    done = test(CASES)
    assert (done.code, done.out) == (0, "cases.yaml: 8 cases, none differing\n")


def test_the_same_cases_in_json(test: Any) -> None:
    cases = [{"id": "a", "method": "/a", "dns_sans": ["a.example.org"], "expect": "allow"}]
    for document in (cases, {"about": "these", "cases": cases}):
        done = test(json.dumps(document), "--json", name="cases.json")
        assert done.code == 0
        assert done.json == {"id": "a", "decision": "allow", "matched_rule": "example_named"}


def test_cases_that_differ_are_named_and_status_1(test: Any) -> None:
    cases = CASES.replace("rule: reads", "rule: names").replace(
        "anonymous, method: /a, expect: deny", "anonymous, method: /a, expect: allow"
    )
    done = test(cases)
    assert done.code == 1
    lines = done.out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *("CASE", "all conditions of a rule", "anonymous", "cases.yaml: 8 cases, 2 differing")
    ]
    assert "allow by names" in lines[1]
    assert lines[1].endswith("allow by reads")
    assert lines[2].split() == ["anonymous", "allow", "deny", "by", "no", "rule"]

    done = test(cases, "--json")
    assert done.code == 1
    assert len(done.out.splitlines()) == 8
    assert done.err.splitlines() == [
        "secure-server: all conditions of a rule: expected allow by names, decided allow by reads",
        "secure-server: anonymous: expected allow, decided deny by no rule",
    ]


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ("", "cases.yaml: there are no cases. Write a list of them."),
        ("[]", "cases.yaml: there are no cases. Write a list of them."),
        ("cases: 1", "cases.yaml: there are no cases. Write a list of them."),
        ("- a", "cases.yaml: case number 1: is no object with id, method and expect."),
        ("- {method: /a, expect: deny}", "cases.yaml: case number 1: id: Field required."),
        (
            "- {id: a, expect: deny}",
            "cases.yaml: case a: method: Field required.",
        ),
        (
            "- {id: a, method: a, expect: deny}",
            "cases.yaml: case a: 'a' is no method: write its full path, /package.Service/Method.",
        ),
        (
            "- {id: a, method: /a, expect: no}",
            "cases.yaml: case a: expect: Input should be 'allow' or 'deny'.",
        ),
        (
            "- {id: a, method: /a, expect: deny, role: [b]}",
            "cases.yaml: case a: role: Extra inputs are not permitted.",
        ),
        (
            "- {id: a, method: /a, expect: deny, headers: {x: 1}}",
            "cases.yaml: case a: headers.x: Input should be a valid list.",
        ),
        (
            "- {id: a, method: /a, expect: deny, spiffe_id: b}",
            "cases.yaml: case a: 'b' is no SPIFFE ID. ",
        ),
        (
            "- {id: a, method: /a, expect: deny}\n- {id: a, method: /b, expect: deny}",
            "cases.yaml: case a: another case has this id.",
        ),
        (
            "- {id: a, method: /a, expect: deny, expect: allow}",
            "cases.yaml:1:3: is not valid YAML: a key is given twice.",
        ),
        ("- {id: a\n- b", "cases.yaml:2:4: is not valid YAML: "),
        ("- \x00", "cases.yaml: cannot be read: "),
        ("[" * 1_000, "cases.yaml: is nested too deep."),
        (
            "- {id: a, expect: deny, request: {path: /a, headers: [[x]]}}",
            "cases.yaml: case a: request.headers.0: List should have at least 2 items ",
        ),
    ],
)
def test_a_file_of_cases_that_cannot_be_used_is_said_in_a_sentence(
    test: Any, cases: str, message: str
) -> None:
    done = test(cases)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"secure-server: {message}")
    assert done.err.count("\n") == 1


def test_a_case_that_brings_its_policy_needs_no_other(run: Any, tmp_path: Path) -> None:
    policy = {"name": "p", "allow_rules": [{"name": "a"}]}
    request = {"path": "/a", "headers": [], "transport": "tls", "cert": None}
    cases = {
        "cases": [
            {"id": "parses", "policy": policy, "request": request, "expect": "allow"},
            {"id": "parses too", "policy": policy, "request": None, "expect": "parse_error"},
            {"id": "does not", "policy_text": "{", "request": request, "expect": "deny"},
        ]
    }
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    done = run("test", "cases.json")
    assert done.code == 1
    assert done.out.splitlines()[1:] == [
        "parses too  parse_error  nothing: the policy parses, and nothing is asked of it",
        (
            "does not    deny         parse_error: policy:1:2: The policy is not valid JSON: "
            "Expecting property name enclosed in double quotes."
        ),
        "cases.json: 3 cases, 2 differing",
    ]
    lines = [json.loads(line) for line in run("test", "cases.json", "--json").out.splitlines()]
    assert [(line["decision"], line["matched_rule"]) for line in lines] == [
        *(("allow", "p_a"), (None, None), ("parse_error", None)),
    ]


def test_a_policy_that_is_missing_is_asked_for(run: Any, tmp_path: Path) -> None:
    (tmp_path / "cases.yaml").write_text(CASES)
    done = run("test", "cases.yaml")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "secure-server: cases.yaml: case all conditions of a rule: there is no policy. "
        "Name one before the cases.\n"
    )
    assert run("test", "cases.yaml", "cases.yaml", "cases.yaml").code == 2
    assert run("test", "none.yaml").err == (
        "secure-server: none.yaml: cannot read the cases: No such file or directory.\n"
    )
