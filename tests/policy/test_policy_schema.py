"""docs/policy.schema.json and the parser agree, as far as a schema can."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from policy_random import a_policy

from secure_server.authz import Policy, PolicyError

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/policy.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
VECTORS = [
    case
    for case in json.loads((ROOT / "tests/vectors/a43_cases.json").read_text())["cases"]
    if case["policy"] is not None
]
# A schema cannot see that two members of a list share one member's value.
UNSEEN = "Another rule of this list is named"


def refusal(policy: Any) -> str | None:
    """What the parser says against it."""
    try:
        Policy.parse(json.dumps(policy), known_loggers=None)
    except PolicyError as error:
        return str(error)
    return None


def assert_agree(policy: Any) -> None:
    said = refusal(policy)
    valid = VALIDATOR.is_valid(policy)
    assert valid is (said is None or UNSEEN in said), (policy, said)


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("case", VECTORS, ids=[case["id"] for case in VECTORS])
def test_the_vectors(case: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid(case["policy"]) is (case["expect"] != "parse_error")
    assert_agree(case["policy"])


@pytest.mark.parametrize(
    "file", ["secure_server/policy.json", "examples/policy.json", "examples/greeter/policy.json"]
)
def test_the_policies_of_this_repository(file: str) -> None:
    policy = json.loads((ROOT / file).read_text(encoding="utf-8"))
    assert VALIDATOR.is_valid(policy)
    assert_agree(policy)


VALUES: list[Any] = [
    *(None, True, 0, 1.5, "", "a", "*", "te", [], ["a"], [1], {}, [{}], {"a": ["b"]}),
    *({"name": "a"}, [{"name": "a"}], [{"key": "x", "values": ["*"]}]),
]
KEYS = [
    *("name", "deny_rules", "allow_rules", "source", "request", "paths", "headers", "key"),
    *("values", "principals", "request_principals", "scopes", "roles", "claims", "config"),
    *("audit_logging_options", "audit_condition", "audit_loggers", "is_optional", "$schema"),
]


def damaged(policy: dict[str, Any], random: Random) -> Any:
    """A copy in which one value somewhere is another, is gone, or has a neighbour."""
    policy = copy.deepcopy(policy)
    places = list(_places(policy))
    owner, key = random.choice(places)
    match random.choice(["replace", "remove", "add"]):
        case "replace":
            owner[key] = copy.deepcopy(random.choice(VALUES))
        case "remove":
            del owner[key]
        case "add":
            if isinstance(owner, list):
                owner.append(copy.deepcopy(random.choice(VALUES)))
            else:
                owner[random.choice(KEYS)] = copy.deepcopy(random.choice(VALUES))
    return policy


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def test_policies_by_chance_and_damaged_ones() -> None:
    random = Random(59)
    refused = 0
    for _ in range(60):
        policy = a_policy(random)
        policy["audit_logging_options"] = {
            "audit_condition": "ON_DENY",
            "audit_loggers": [{"name": "stdout_logger", "config": {}, "is_optional": True}],
        }
        assert refusal(policy) is None
        assert_agree(policy)
        for _ in range(15):
            broken = damaged(policy, random)
            assert_agree(broken)
            refused += refusal(broken) is not None
    assert 300 < refused < 850


@pytest.mark.parametrize(
    "key",
    [
        *("x", "X-Env", "a.b_c-1", "hosts", "grpc", "grpcx", "te-", "x-te", "-bin", "upgraded"),
        *("", ":path", "grpc-x", "GRPC-", "Host", "TE", "Trailer", "a b", "ü", "a:b", "Upgrade"),
        *("Connection", "KEEP-alive", "Proxy-Authenticate", "proxy-authorization", "x\ny"),
        "transfer-Encoding",
    ],
)
def test_the_names_of_headers(key: str) -> None:
    headers = [{"key": key, "values": ["*"]}]
    assert_agree({"name": "p", "allow_rules": [{"name": "a", "request": {"headers": headers}}]})


@pytest.mark.parametrize(
    "name",
    [
        *("a", "a_b-c", "A.b.c", "größe", "[a]", "[a][b.c]", "[https://a.test/r]", "1"),
        *("", ".", "a.", ".a", "a..b", "a b", "a/b", "[a", "a]", "[a]b", "[]", "a[b]", "[a].b"),
        *("a:b", "a,b", "a@b", "a\\b", "a^b", "a`b", "a~b", "a{b"),
    ],
)
def test_the_names_of_claims(name: str) -> None:
    claims = {name: ["*"]}
    assert_agree({"name": "p", "allow_rules": [{"name": "a", "source": {"claims": claims}}]})


def test_two_rules_of_one_name_pass_the_schema_and_not_the_parser() -> None:
    policy = {"name": "p", "allow_rules": [{"name": "a"}, {"name": "a"}]}
    assert VALIDATOR.is_valid(policy)
    assert UNSEEN in (refusal(policy) or "")
