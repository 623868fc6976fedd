"""What gRPC hands over of the headers of a call, on both stacks, and what `authz.headers` says."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from policy_doors import OPEN, Door, running_doors

from secure_server.authz import Policy, PolicyError
from secure_server.authz.check import PolicyFindingKind, check
from secure_server.authz.errors import HeaderError
from secure_server.authz.headers import (
    NEVER_HANDED_OVER,
    described_headers,
    policy_headers,
    why_unmatchable,
)

POLICY = Policy.parse(OPEN)
STACKS = ["threads", "asyncio"]
NEEDED = [("content-type", "application/grpc"), ("te", "trailers")]
UA = ("user-agent", "ua")

# Where any text would be a value that gRPC cannot parse.
VALUES = {
    "grpc-accept-encoding": "gzip",
    "grpc-encoding": "identity",
    "grpc-status": "0",
    "grpc-timeout": "5S",
    "lb-cost-bin": "AAAAAAAA8D9h",
    "te": "trailers",
    "content-type": "application/grpc",
}


@pytest.fixture(scope="module")
def doors() -> Iterator[dict[str, Door]]:
    with running_doors() as doors:
        yield doors


@pytest.fixture(params=STACKS)
def door(request: pytest.FixtureRequest, doors: dict[str, Door]) -> Door:
    return doors[request.param]


def seen(door: Door, *headers: tuple[str, str]) -> list[tuple[str, str | bytes]] | None:
    """The headers that the server's handler sees; None where no handler ran."""
    return door.ask(POLICY, "a", "/a/B", headers).seen


@pytest.mark.parametrize("name", sorted(NEVER_HANDED_OVER))
def test_G19_grpc_hides_these_headers_from_servers(door: Door, name: str) -> None:
    others = [(key, value) for key, value in NEEDED if key != name]
    value = VALUES.get(name, "dmFs" if name.endswith("-bin") else "val")
    found = seen(door, *others, UA, (name, value))
    # Of the last two a client can say nothing that gRPC does not end the call for.
    assert found == [UA] or name in {"grpclb_client_stats", "grpc-internal-encoding-request"}
    assert found is None or name not in dict(found)


@pytest.mark.parametrize("pseudo", [":path", ":authority", ":method", ":scheme"])
def test_G19_grpc_hides_pseudo_headers_from_servers(door: Door, pseudo: str) -> None:
    found = seen(door, *NEEDED, UA)
    assert found is not None
    assert pseudo not in dict(found)
    assert why_unmatchable(pseudo)


@pytest.mark.parametrize(
    "name",
    [
        *("accept-encoding", "accept", "content-encoding", "content-length", "cookie", "date"),
        *("traceparent", "x-forwarded-for", "lb-token", "status", "path", "authority", "a.b_c-1"),
        *("host", "connection", "proxy-authorization", "grpc-foo", "grpc-previous-rpc-attempts"),
    ],
)
def test_G19_grpc_hands_over_all_other_headers(door: Door, name: str) -> None:
    assert sorted(seen(door, *NEEDED, UA, (name, "1")) or []) == sorted([UA, (name, "1")])
    assert described_headers([(name, "1")]) == {name: "1"}


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ([("x", "a"), ("y", "1"), ("x", "b")], {"x": "a,b", "y": "1"}),
        ([("x", "a,b"), ("x", "")], {"x": "a,b,"}),
        ([("x", "")], {"x": ""}),
        ([("x", " a "), ("y", "\ta\t")], {"x": " a ", "y": "\ta\t"}),
        ([("x", "ü")], {"x": "ü"}),
        ([("x-bin", "YQ")], {"x-bin": "YQ=="}),
        ([("x-bin", "YQ==")], {"x-bin": "YQ=="}),
        ([("x-bin", "YQ"), ("x-bin", "/+8=")], {"x-bin": "YQ==,/+8="}),
        ([("x-bin", "")], {"x-bin": ""}),
        ([("-bin", "YQ")], {"-bin": "YQ=="}),
        ([("bin", "YQ")], {"bin": "YQ"}),
    ],
)
def test_G19_values_come_to_the_policy_as_a_description_says(
    door: Door, sent: list[tuple[str, str]], found: dict[str, str]
) -> None:
    came = seen(door, *NEEDED, UA, *sent)
    assert came is not None
    assert policy_headers(came) == found | dict([UA])
    assert described_headers(sent) == found
    assert described_headers((key.upper(), value) for key, value in sent) == found


@pytest.mark.parametrize("name", ["user-agent", "lb-token"])
def test_G19_of_these_headers_grpc_hands_over_the_last_value(door: Door, name: str) -> None:
    sent = [(name, "1"), (name, "2")]
    came = seen(door, *NEEDED, *([] if name == "user-agent" else [UA]), *sent)
    assert dict(came or [])[name] == "2"
    assert (came or []).count((name, "1")) == 0
    with pytest.raises(HeaderError, match=f"two values of the header {name}"):
        described_headers(sent)


@pytest.mark.parametrize(
    "sent",
    [
        [("x-bin", "!")],
        [("x-bin", "YQ,Yg")],
        [("x-bin", "YR")],
        [("x-bin", "_-8")],
        [("host", "a"), ("host", "b")],
        [("authorization", "Claims e30="), ("authorization", "Claims e30=")],
    ],
)
def test_G19_a_call_that_comes_to_no_policy_cannot_be_described(
    door: Door, sent: list[tuple[str, str]]
) -> None:
    answer = door.ask(POLICY, "a", "/a/B", [*NEEDED, UA, *sent])
    assert (answer.allowed, answer.rule) == (False, None)
    with pytest.raises(HeaderError):
        described_headers(sent)


def a_policy(rules: str, key: str, *values: str) -> str:
    rule = {"name": "r", "request": {"headers": [{"key": key, "values": values}]}}
    return json.dumps({"name": "p", "allow_rules": [{"name": "a"}]} | {rules: [rule]}, indent=1)


@pytest.mark.parametrize("rules", ["deny_rules", "allow_rules"])
@pytest.mark.parametrize("name", ["Content-Type", *sorted(NEVER_HANDED_OVER)])
def test_G19_a_rule_on_a_header_that_no_server_sees_is_an_error(rules: str, name: str) -> None:
    with pytest.raises(PolicyError, match=f'Header "{name}" cannot be matched') as caught:
        Policy.parse(a_policy(rules, name, "*"))
    assert str(caught.value).endswith(
        ("take it out.", "Pseudo, grpc-, host and hop-by-hop headers are gRPC's own.")
    )


def findings(text: str) -> list[tuple[PolicyFindingKind, str]]:
    report = check(text, origin="p", known_loggers=frozenset())
    return [(finding.kind, finding.message) for finding in report.findings]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["YQ"], '"YQ". Binary headers are compared as base64 text with its padding. '),
        (["YQ"], 'Did you mean "YQ=="?'),
        (["YQ,Yg=="], 'Did you mean "YQ==,Yg=="?'),
        (["raw value"], '"raw value". Binary headers are compared as base64'),
        (["a-*"], '"a-*". Binary'),
        (["*ü"], '"*\\u00fc". Binary'),
    ],
)
def test_G19_a_value_that_no_binary_header_can_have_is_a_warning(
    values: list[str], message: str
) -> None:
    ((kind, said),) = findings(a_policy("allow_rules", "X-Bin", *values))
    assert kind is PolicyFindingKind.NO_SUCH_VALUE
    assert said.startswith('The header "x-bin" never has the value ')
    assert message in said


def test_G19_values_that_a_binary_header_can_have_are_no_warning() -> None:
    values = ["YQ==", "YWI=", "YWJj", "YQ==,Yg==", "", "YW*", "*Q==", "*"]
    assert findings(a_policy("allow_rules", "x-bin", *values)) == []
    assert findings(a_policy("allow_rules", "x", "raw value", "YQ")) == []


@pytest.mark.parametrize("values", [["a"], ["a*", "*a"], ["a", "b", ""]])
def test_G19_a_deny_rule_that_a_repeated_header_evades_is_a_warning(
    door: Door, values: list[str]
) -> None:
    text = a_policy("deny_rules", "X-Env", *values)
    policy = Policy.parse(text)
    once, twice = [("x-env", "a")], [("x-env", "z"), ("x-env", "a"), ("x-env", "z")]
    assert not door.ask(policy, "a", "/a/B", [*NEEDED, UA, *once]).allowed
    assert door.ask(policy, "a", "/a/B", [*NEEDED, UA, *twice]).allowed

    ((kind, message),) = findings(text)
    assert kind is PolicyFindingKind.REPEATED_HEADER
    assert message == (
        'A caller evades the deny rule "r" by sending the header "x-env" twice: its values are '
        'compared as one text, joined by commas (gRFC A43). Deny any value, ["*"], or name the '
        "good values in the allow rules instead."
    )


@pytest.mark.parametrize(
    ("rules", "key", "values"),
    [
        ("deny_rules", "x-env", ["*"]),
        ("deny_rules", "x-env", ["a", "*"]),
        ("deny_rules", "user-agent", ["curl*"]),  # comes once
        ("allow_rules", "x-env", ["a"]),
    ],
)
def test_G19_a_rule_that_a_repeated_header_does_not_evade_is_no_warning(
    rules: str, key: str, values: list[str]
) -> None:
    assert findings(a_policy(rules, key, *values)) == []
