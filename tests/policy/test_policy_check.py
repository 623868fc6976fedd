"""``secure-server policy check``: what it says, and what it ends with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from secure_server.authz import Policy
from secure_server.config import ConfigError
from secure_server.shipped_policy import check_every_method_has_a_rule

ROOT = Path(__file__).parents[2]
SHIPPED = resources.files("secure_server").joinpath("policy.json").read_text(encoding="utf-8")

WARNED = """{
  "name": "p",
  "deny_rules": [{"name": "no", "request": {"paths": ["/a.S/*"]}}],
  "allow_rules": [
    {"name": "late", "request": {"paths": ["/a.S/M"]}},
    {"name": "rest", "request": {"paths": ["/b.S/M"]}}
  ]
}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.json"
    file.write_text(WARNED)
    return file


def test_a_parse_error_is_shown_with_line_and_column_and_is_status_1(
    run: Any, policy: Path
) -> None:
    policy.write_text('{"name": "p",\n "allow_rules": [{"name": "a", "sources": {}}]}')
    message = (
        'policy.json:2:32: Unknown key "sources" at $.allow_rules[0].sources in rule "a". '
        'Did you mean "source"?'
    )
    done = run("check", "policy.json")
    assert (done.code, done.out, done.err) == (1, "", f"secure-server: {message}\n")

    done = run("check", "policy.json", "--json")
    assert (done.code, done.err) == (1, "")
    (finding,) = done.json["findings"]
    assert finding["message"] == message
    assert [finding[key] for key in ("severity", "kind", "line", "column")] == [
        *("error", "parse_error", 2, 32),
    ]


def test_warnings_name_file_line_and_rule_and_are_status_0(run: Any, policy: Path) -> None:
    done = run("check", "policy.json")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        (
            'policy.json:5:5: warning: The allow rule "late" never allows anything: the deny rule '
            '"no" (line 3) refuses all its calls.'
        ),
        (
            "policy.json: 3 rules, methods unknown (--descriptor-set or --method tells them): "
            "0 errors, 1 warning"
        ),
    ]
    (finding,) = run("check", "policy.json", "--json").json["findings"]
    assert finding["rule"] == {"list": "allow_rules", "name": "late", "line": 5, "column": 5}
    assert finding["earlier"] == [{"list": "deny_rules", "name": "no", "line": 3, "column": 18}]


def test_given_methods_are_compared_with_the_rules(run: Any, policy: Path) -> None:
    done = run("check", "policy.json", "--method", "/a.S/M", "--method", "/c.S/M")
    assert done.code == 0
    assert (
        'policy.json: warning: No rule is about "/c.S/M": no caller may call it. Add one; a deny '
        "rule says that it is meant so.\n"
    ) in done.out
    assert 'policy.json:6:44: warning: The path "/b.S/M" matches no known method.' in done.out
    assert done.out.endswith("3 rules, 2 methods: 0 errors, 3 warnings\n")


def test_methods_come_from_a_descriptor_set(run: Any, tmp_path: Path) -> None:
    descriptor_set = tmp_path / "greeter.binpb"
    protos = ROOT / "examples/greeter/protos"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", protos, "--include_imports"),
            *("--descriptor_set_out", descriptor_set, "greeter/v1/greeter.proto"),
        ],
        check=True,
    )
    shipped = ROOT / "examples/greeter/policy.json"
    done = run("check", shipped, "--descriptor-set", descriptor_set)
    assert (done.code, done.out) == (0, f"{shipped}: 2 rules, 4 methods: 0 errors, 0 warnings\n")

    less = json.loads(shipped.read_text())
    del less["allow_rules"][1]
    (tmp_path / "less.json").write_text(json.dumps(less))
    done = run("check", "less.json", "--descriptor-set", descriptor_set)
    assert done.code == 0
    assert 'warning: No rule is about "/greeter.v1.GreeterService/GreetAll"' in done.out


def test_the_shipped_policy_is_clean(run: Any, policy: Path) -> None:
    policy.write_text(SHIPPED)
    done = run("check", "policy.json", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json == {"policy": "secure-server", "rules": 4, "findings": []}


@pytest.mark.parametrize("number", range(3))
def test_G14_a_method_of_the_shipped_service_without_a_rule_is_an_error_here_as_at_the_start(
    run: Any, policy: Path, number: int
) -> None:
    less = json.loads(SHIPPED)
    del less["allow_rules"][number]
    policy.write_text(json.dumps(less))
    done = run("check", "policy.json")
    assert (done.code, done.err) == (1, "")
    forgotten = re.findall(r'^policy.json: error: No rule is about "(.+?)"', done.out, re.MULTILINE)
    assert forgotten
    with pytest.raises(ConfigError, match=re.escape(f"no rule for {', '.join(forgotten)}. Add")):
        check_every_method_has_a_rule(Policy.parse(policy.read_text()))


def test_O6_an_unreadable_file_is_a_sentence(run: Any, tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"name": "\xe9"}')
    (tmp_path / "empty.binpb").write_bytes(b"")
    (tmp_path / "text.binpb").write_text("syntax")
    (tmp_path / "good.json").write_text(WARNED)
    for arguments, message in (
        (["none.json"], "none.json: cannot read the policy: No such file or directory."),
        (["latin.json"], "latin.json: the policy is not UTF-8."),
        (
            ["good.json", "--descriptor-set", "none"],
            "none: cannot read: No such file or directory.",
        ),
        (
            ["good.json", "--descriptor-set", "text.binpb"],
            "text.binpb: is no descriptor set: make one with protoc --descriptor_set_out.",
        ),
        (["good.json", "--descriptor-set", "empty.binpb"], "empty.binpb: holds no service."),
        (
            ["good.json", "--method", "a.S/M"],
            "'a.S/M' is no method: write its full path, /package.Service/Method.",
        ),
    ):
        done = run("check", *arguments)
        assert (done.code, done.out, done.err) == (1, "", f"secure-server: {message}\n")


def test_O3_names_cannot_steer_a_terminal(run: Any, policy: Path) -> None:
    hostile = "\x1b[31m\r\n\u202e"
    rules = [{"name": hostile}, {"name": "b", "request": {"paths": [f"/{hostile}"]}}]
    policy.write_text(json.dumps({"name": hostile, "allow_rules": rules}))
    for command in (
        ("check", "policy.json", "--method", f"/{hostile}b"),
        ("explain", "policy.json", "--method", f"/{hostile}", "--header", f"x={hostile}"),
        ("explain", "policy.json", "--method", "/a", "--claims", json.dumps({"sub": hostile})),
    ):
        done = run(*command)
        assert done.code == 0
        assert all(line.isprintable() for line in done.out.split("\n"))
