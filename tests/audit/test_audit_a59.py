"""gRFC A59: which decisions reach which logger, and the exact line."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from audit_door import METHOD, AuditedDoor, Pipe, audited, file_logger, policy, records

from support.door import wait_until
from support.raw import context_from_files, raw_client

_VECTORS = Path(__file__).parent.parent / "vectors" / "a43_cases.json"
AUDITED = [
    case
    for case in json.loads(_VECTORS.read_text(encoding="utf-8"))["cases"]
    if "audit_events" in case
]
ALICE = "spiffe://example.org/client/alice"
BOB = "spiffe://example.org/client/bob"


def four_calls(door: AuditedDoor) -> None:
    """One that is allowed, one that a rule denies, one that no rule allows, and a bad token."""
    assert door.call() == "OK"
    assert door.call("/probe.Probe/Never") == "PERMISSION_DENIED"
    assert door.call(client="bob") == "PERMISSION_DENIED"
    assert door.call(token="no-token") == "UNAUTHENTICATED"


def test_stdout_logger_writes_A59s_line_and_nothing_else(tmp_path: Path, stack: str) -> None:
    begun = datetime.now(UTC)
    with Pipe() as stdout, audited(tmp_path, stack, policy({"name": "stdout_logger"})) as door:
        four_calls(door)
        lines = stdout.read(4)
    expected = [
        (METHOD, ALICE, "probe", "alice-gets", "true"),
        ("/probe.Probe/Never", ALICE, "probe", "never", "false"),
        (METHOD, BOB, "probe", "", "false"),
        # No policy was asked, so that none is named.
        (METHOD, ALICE, "", "", "false"),
    ]
    assert len(lines) == 4
    for line, (method, principal, name, rule, authorized) in zip(lines, expected, strict=True):
        match = re.fullmatch(
            r'\{"grpc_audit_log":\{"timestamp":"([^"]+)",'
            rf'"rpc_method":"{method}","principal":"{principal}","policy_name":"{name}",'
            rf'"matched_rule":"{rule}","authorized":{authorized}\}}\}}',
            line,
        )
        assert match is not None, line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", match[1])
        assert begun <= datetime.fromisoformat(match[1]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("NONE", []),
        ("ON_ALLOW", [True]),
        ("ON_DENY", [False, False, False]),
        ("ON_DENY_AND_ALLOW", [True, False, False, False]),
    ],
)
def test_the_condition_says_which_are_told_refused_credentials_among_denials(
    tmp_path: Path, stack: str, condition: str, told: list[bool]
) -> None:
    log = tmp_path / "audit.log"
    with audited(tmp_path, stack, policy(file_logger(log), condition=condition)) as door:
        four_calls(door)
    assert [record["authorized"] for record in records(log)] == told


def test_beyond_A59_a_file_has_the_true_reason_and_who_called(tmp_path: Path, stack: str) -> None:
    log = tmp_path / "audit.log"
    with audited(tmp_path, stack, policy(file_logger(log))) as door:
        four_calls(door)
        expired = door.issuer.token(door.client("alice"), subject="eve", defect="expired")
        assert door.call(token=expired) == "UNAUTHENTICATED"
        assert door.call(token=None) == "OK", "alice needs no token"
        assert door.call(client="bob", token=None) == "UNAUTHENTICATED"
    a59 = ("timestamp", "rpc_method", "principal", "policy_name", "matched_rule", "authorized")
    found = records(log)
    assert all(tuple(record)[:6] == a59 for record in found)
    known = {"subject": "alice", "issuer": door.issuer.name, "authenticator": "jwt"}
    more = [{key: record[key] for key in record if key not in a59} for record in found]
    assert more[0] == known
    denied = {"reason": "policy", "detail": "Denied by the rule never."}
    assert more[1] == known | denied
    assert more[2]["detail"] == "No rule allows it."
    assert more[3]["reason"] == "unclaimed"
    assert (more[4]["reason"], more[4]["unverified"]["sub"]) == ("expired", "eve")
    assert "subject" not in more[4], "what is not verified is not said to be so"
    assert more[5] == {}
    assert more[6]["reason"] == "anonymous_denied"
    assert [record["policy_name"] for record in found] == [*["probe"] * 3, "", "", "probe", "probe"]


@pytest.mark.parametrize("case", AUDITED, ids=[case["id"] for case in AUDITED])
def test_the_vectors_events_are_written(tmp_path: Path, case: dict[str, Any], stack: str) -> None:
    """A file logger writes them, for a client of the vector's trust domain."""
    log = tmp_path / "audit.log"
    text = json.dumps(case["policy"])
    assert '{"name": "test_logger"}' in text
    text = text.replace('{"name": "test_logger"}', json.dumps(file_logger(log)))
    request = case["request"]
    with audited(tmp_path, stack, text, trust_domain="foo.com") as door:
        headers = tuple((key, value) for key, value in request["headers"])
        allowed = door.call(request["path"], headers=headers) == "OK"
        assert allowed is (case["expect"] == "allow")
    expected = [
        event | {"principal": "spiffe://foo.com/client/alice"} for event in case["audit_events"]
    ]
    found = records(log)
    assert [{key: record[key] for key in expected[0]} for record in found] == expected or (
        found == expected == []
    )


HOSTILE = '/a\n{"grpc_audit_log":{}}\r\x1b[31m\x07\x7f\x85\x9b31m\u2028\u202e/M'


def test_O3_a_hostile_name_stays_inside_its_line(tmp_path: Path, stack: str) -> None:
    log = tmp_path / "audit.log"
    text = policy({"name": "stdout_logger"}, file_logger(log))
    with Pipe() as stdout, audited(tmp_path, stack, text) as door:
        alice = door.client("alice")
        (tmp_path / "alice.pem").write_bytes(alice.certificate_pem)
        (tmp_path / "alice.key").write_bytes(alice.private_key_pem)
        context = context_from_files(
            tmp_path / "alice.pem", tmp_path / "alice.key", tmp_path / "ca.pem"
        )
        with raw_client(door.address, context) as client:
            assert client.call(HOSTILE).code.name == "UNAUTHENTICATED"
        (line,) = stdout.read(1)
        wait_until(lambda: len(records(log)) == 1)
    written = log.read_bytes()
    assert written.count(b"\n") == 1
    for text in (line, written.decode("ascii").rstrip("\n")):
        assert text.isascii()
        assert text.isprintable()
        assert json.loads(text)["grpc_audit_log"]["rpc_method"] == HOSTILE
