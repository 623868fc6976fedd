"""The facts about gRFC A43 and A59, case by case."""

import json
from pathlib import Path

import pytest
from a43_values import a_peer

from secure_server.auth.principal import ANONYMOUS
from secure_server.authz import Policy, PolicyError

_FILE = Path(__file__).parent.parent / "vectors" / "a43_cases.json"
_CASES = json.loads(_FILE.read_text(encoding="utf-8"))["cases"]
_LOGGERS = frozenset({"test_logger", "stdout_logger"})


def _joined(headers):
    values = {}
    for key, value in headers:
        values.setdefault(key, []).append(value)
    return {key: ",".join(each) for key, each in values.items()}


def test_every_case_is_there():
    assert len(_CASES) == 73
    assert len({case["id"] for case in _CASES}) == 73


@pytest.mark.parametrize("case", _CASES, ids=[case["id"] for case in _CASES])
def test_case(case):
    text = case.get("policy_text") or json.dumps(case["policy"])
    if case["expect"] == "parse_error":
        with pytest.raises(PolicyError) as caught:
            Policy.parse(text, known_loggers=_LOGGERS)
        assert caught.value.line == 1
        return

    policy = Policy.parse(text, known_loggers=_LOGGERS)
    request = case["request"]
    peer = None if request["cert"] is None else a_peer(**request["cert"])
    decision = policy.decide(
        request["path"],
        peer=peer,
        principal=ANONYMOUS,
        headers=_joined(request["headers"]),
        tls=request["transport"] != "plaintext",
    )

    assert decision.allowed is (case["expect"] == "allow")
    if "matched_rule" in case:
        # grpc-go's message has the policy's name in front; A59 has it in a field of its own.
        assert f"{policy.name}_{decision.rule}" == case["matched_rule"]
    if "audit_events" in case:
        event = {
            "rpc_method": request["path"],
            "principal": peer.uri_sans[0],
            "policy_name": policy.name,
            "matched_rule": decision.rule,
            "authorized": decision.allowed,
        }
        assert ([event] if decision.audit else []) == case["audit_events"]
