"""One judge: `policy check`, `explain`, `test` and the door agree, whatever headers a call has.

1,000 policies by chance and a call for each, over real connections on both stacks.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import typer
from policy_doors import CLIENTS, DOMAIN, Door, authorization, running_doors
from policy_random import PATHS, WORDS, a_policy

from secure_server.audit import plugin
from secure_server.authz import Policy, PolicyError
from secure_server.authz.headers import HANDED_OVER_ONCE, NEVER_HANDED_OVER
from secure_server.cli import policy as commands
from secure_server.guard.policy_file import read_policy

SEED = 19
POLICIES = 1_000
THROUGH_A_PROCESS = 2

# A rule's headers: those that callers choose, those that gRPC sets, those that it hides.
_RULED = [
    *("x-one", "X-Two", "x-bin", "X-One", "cookie"),
    *("user-agent", "authorization", "accept-encoding", "lb-token", "content-length"),
    *("content-type", "x-envoy-peer-metadata", "te", "host", "grpc-foo"),
]
_RARELY = _RULED[-5:]
_VALUES = {
    "content-type": ["application/grpc", "application/grpc+proto"],
    "te": ["trailers"],
    "grpc-timeout": ["20S"],
    "grpc-encoding": ["identity"],
    "content-length": ["5", "15"],
    "x-bin": ["YQ", "YQ==", "/+8", "", "YWI="],
    "accept-encoding": ["gzip", "identity", "gzip,br"],
}
_SENT = [
    *("x-one", "x-two", "x-bin", "cookie", "user-agent", "accept-encoding", "lb-token"),
    *("content-length", "content-type", "x-envoy-peer-metadata", "te", "grpc-foo", "grpc-timeout"),
    *("grpc-encoding", "connection"),
]
_IDS = [f"spiffe://{DOMAIN}/client/{name}" for name in CLIENTS]

Header = tuple[str, str]


@dataclass(frozen=True)
class Call:
    """``headers`` are in the order of the wire, the credential of ``claims`` among them."""

    client: str
    path: str
    claims: dict[str, Any] | None
    headers: tuple[Header, ...]


def a_ruled_policy(random: Random) -> dict[str, Any]:
    policy = a_policy(random)
    for rule in (*policy["deny_rules"], *policy["allow_rules"]):
        rule["request"].pop("headers", None)
        if random.random() < 0.6:
            keys = [_a_key(random) for _ in range(random.choice([1, 1, 2]))]
            rule["request"]["headers"] = [
                {"key": key, "values": _patterns(random, key)} for key in keys
            ]
        if "principals" in rule["source"]:
            rule["source"]["principals"] = random.sample([*_IDS, "spiffe://*", "*b"], 2)
        if random.random() < 0.5:
            rule["source"].pop("roles", None)
            rule["source"].pop("scopes", None)
    # So that the guard's audit names the rule that allowed a call.
    loggers = [{"name": "stdout_logger"}]
    policy["audit_logging_options"] = {
        "audit_condition": "ON_DENY_AND_ALLOW",
        "audit_loggers": loggers,
    }
    return policy


def _a_key(random: Random) -> str:
    return random.choice(_RARELY if random.random() < 0.05 else _RULED[:-5])


def _patterns(random: Random, key: str) -> list[str]:
    words = _VALUES.get(key.lower(), [*WORDS, "ua", ""])
    words = [word for each in words for word in (each, each[:1] + "*", "*" + each[-2:], "*")]
    return random.sample(words, random.choice([1, 2, 3]))


def a_call(random: Random) -> Call:
    claims = None if random.random() < 0.4 else _claims(random)
    headers = [_a_header(random) for _ in range(random.choice([0, 1, 2, 2, 3, 4]))]
    headers += [("host", "h")] if random.random() < 0.1 else []
    again = [header for header in headers if header[0] != "host"]  # for two gRPC ends the call
    headers += random.choices(again, k=random.choice([0, 0, 1])) if again else []
    if claims is not None:
        headers.append(("authorization", authorization(claims)))
    # gRPC asks for these; each is sent once at the least.
    for key, value in (
        ("user-agent", "ua"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ):
        if key not in dict(headers):
            headers.insert(0, (key, value))
    return Call(random.choice(CLIENTS), random.choice(PATHS), claims, tuple(headers))


def _a_header(random: Random) -> Header:
    key = random.choice(_SENT)
    return key, random.choice(_VALUES.get(key, [*WORDS, "", " a ", "a,b", "a,", "ü"]))


def _claims(random: Random) -> dict[str, Any]:
    def texts() -> list[str]:
        return random.sample(WORDS, random.choice([0, 1, 2]))

    a = random.choice([random.choice(WORDS), texts(), {"b": random.choice(WORDS)}])
    scope = " ".join(texts())
    return {"iss": "i", "sub": "s", "roles": texts(), "scope": scope, "a": a, "b": "ab"}


def run(command: Any, *arguments: Any, **options: Any) -> tuple[int, str, str]:
    """Call what is behind a command: status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command(*arguments, **options)
        except PolicyError as error:  # the command line makes a sentence of it
            code = 1
            err.write(str(error))
        except typer.Exit as end:
            code = end.exit_code
    return code, out.getvalue(), err.getvalue()


def explained(path: Path, call: Call, headers: list[Header]) -> tuple[int, str, str]:
    return run(
        commands.explain,
        path,
        method=call.path,
        spiffe_id=f"spiffe://{DOMAIN}/client/{call.client}",
        claims=None if call.claims is None else json.dumps(call.claims),
        header=[f"{key}={value}" for key, value in headers],
        as_json_=True,
    )


def as_case(call: Call, headers: list[Header], number: int = 0) -> dict[str, Any]:
    said: dict[str, list[str]] = {}
    for key, value in headers:
        said.setdefault(key, []).append(value)
    return {
        "id": str(number),
        "method": call.path,
        "spiffe_id": f"spiffe://{DOMAIN}/client/{call.client}",
        **({} if call.claims is None else {"claims": call.claims}),
        "headers": said,
        "expect": "allow",
    }


def as_vector(policy: dict[str, Any], call: Call, headers: list[Header]) -> dict[str, Any]:
    """An anonymous call that brings its policy."""
    cert = {"uri_sans": [f"spiffe://{DOMAIN}/client/{call.client}"]}
    return {
        "policy": policy,
        "request": {"path": call.path, "headers": headers, "cert": cert},
    }


def _as_the_server_reads(path: Path) -> tuple[Policy | None, str]:
    try:
        return read_policy(path), ""
    except PolicyError as error:
        return None, str(error)


def as_it_comes(headers: tuple[Header, ...]) -> list[Header]:
    """The headers without what no policy sees; of what comes once the last.

    The oracle: `test_policy_headers.py` has it from gRPC.
    """
    last = {key: number for number, (key, _) in enumerate(headers)}
    return [
        (key, value)
        for number, (key, value) in enumerate(headers)
        if key not in NEVER_HANDED_OVER and (key not in HANDED_OVER_ONCE or last[key] == number)
    ]


def decided(out: str) -> tuple[bool, str]:
    explanation = json.loads(out)
    rule = explanation["rule"]
    return explanation["decision"] == "allow", "" if rule is None else rule["name"]


@pytest.fixture(scope="module")
def doors() -> Iterator[dict[str, Door]]:
    with running_doors() as doors:
        yield doors


def test_G19_the_commands_and_both_doors_agree_on_1000_policies_and_calls(
    doors: dict[str, Door], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which packages are installed stays the same, and looking costs ten times what a policy does.
    monkeypatch.setattr(plugin, "entry_points", functools.cache(plugin.entry_points))
    random = Random(SEED)
    path, cases_path = tmp_path / "policy.json", tmp_path / "cases.json"
    met: Counter[str] = Counter()
    vectors: list[dict[str, Any]] = []
    for number in range(POLICIES):
        policy, call = a_ruled_policy(random), a_call(random)
        path.write_text(json.dumps(policy))
        code, out, err = run(commands.check, path)
        snapshot, why = _as_the_server_reads(path)
        # Headers that the server refuses, every command refuses for the same reason.
        assert (code, err) == (int(snapshot is None), why), policy
        if snapshot is None:
            assert run(commands.explain, path, method="/a") == (1, "", why)
            met["refused"] += 1
            continue

        waiting = [
            doors[stack].begin(snapshot, call.client, call.path, call.headers)
            for stack in ("threads", "asyncio")
        ]
        threads, aio = (answer() for answer in waiting)
        assert (threads.allowed, threads.rule) == (aio.allowed, aio.rule)

        headers = as_it_comes(call.headers)
        cases_path.write_text(json.dumps([as_case(call, list(call.headers))]))
        if len(headers) != len(call.headers):
            # A call described other than it arrives is refused with a sentence, never answered.
            assert explained(path, call, list(call.headers))[0] == 1
            code, out, err = run(commands.hold, [path, cases_path])
            assert (code, out, err.count("\n")) == (1, "", 1)
        door = (threads.allowed, threads.rule)
        code, out, err = explained(path, call, headers)
        assert code == 0, err
        assert decided(out) == door, (policy, call)

        cases_path.write_text(json.dumps([as_case(call, headers)]))
        code, out, _ = run(commands.hold, [path, cases_path], as_json_=True)
        line = json.loads(out)
        rule = "" if line["matched_rule"] is None else line["matched_rule"].removeprefix("random_")
        assert (line["decision"] == "allow", rule) == door, (policy, call)

        met["allow" if threads.allowed else "deny by a rule" if threads.rule else "deny"] += 1
        if call.claims is None:
            expect = {"expect": "allow" if threads.allowed else "deny"}
            matched = {"matched_rule": f"random_{threads.rule}"} if threads.rule else {}
            vectors.append(
                {"id": str(number), **as_vector(policy, call, headers)} | expect | matched
            )

    # The sample means something only where every end is met often.
    assert met.total() == POLICIES
    assert min(met[end] for end in ("allow", "deny", "deny by a rule", "refused")) > 80, met
    _through_the_command_line(vectors, tmp_path)


def _through_the_command_line(vectors: list[dict[str, Any]], folder: Path) -> None:
    """The same once more by processes: all that need no claims at once, and a few by themselves."""
    assert len(vectors) > 200
    cases = folder / "vectors.json"
    cases.write_text(json.dumps(vectors))
    assert _secure_server("test", cases).endswith(f"{len(vectors)} cases, none differing\n")
    file = folder / "policy.json"
    for vector in vectors[:THROUGH_A_PROCESS]:
        file.write_text(json.dumps(vector["policy"]))
        request = vector["request"]
        headers = [f"--header={key}={value}" for key, value in request["headers"]]
        out = _secure_server(
            *("explain", file, "--json", "--method", request["path"]),
            *("--spiffe-id", request["cert"]["uri_sans"][0], *headers),
        )
        allowed, rule = decided(out)
        assert allowed is (vector["expect"] == "allow")
        assert rule == vector.get("matched_rule", "").removeprefix("random_")


def _secure_server(*arguments: object) -> str:
    command = [Path(sys.executable).with_name("secure-server"), "policy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_G19_a_call_that_leaves_out_what_every_call_has_is_not_answered(
    doors: dict[str, Door], tmp_path: Path
) -> None:
    rule = {"name": "no-curl", "request": {"headers": [{"key": "User-Agent", "values": ["*"]}]}}
    text = json.dumps({"name": "p", "deny_rules": [rule], "allow_rules": [{"name": "a"}]})
    (tmp_path / "policy.json").write_text(text)
    call = Call("a", "/a", None, ())
    code, _, err = explained(tmp_path / "policy.json", call, [])
    assert code == 1
    assert "A rule of the policy reads the header user-agent, which every call has" in err
    _, out, _ = explained(tmp_path / "policy.json", call, [("user-agent", "curl")])
    needed = [("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "curl")]
    for door in doors.values():
        answer = door.ask(Policy.parse(text), "a", "/a", needed)
        assert (answer.allowed, answer.rule) == decided(out) == (False, "no-curl")
    (tmp_path / "cases.json").write_text(json.dumps([as_case(call, [])]))
    code, _, err = run(commands.hold, [tmp_path / "policy.json", tmp_path / "cases.json"])
    assert code == 1
    assert (
        "cases.json: case 0: A rule of the policy reads the header user-agent, which every call has"
        in err
    )


def test_G19_the_header_that_a_rule_reads_of_a_caller_with_a_token_must_be_given(
    doors: dict[str, Door], tmp_path: Path
) -> None:
    values = ["Claims *"]
    rule = {"name": "no", "request": {"headers": [{"key": "Authorization", "values": values}]}}
    text = json.dumps({"name": "p", "deny_rules": [rule], "allow_rules": [{"name": "a"}]})
    (tmp_path / "policy.json").write_text(text)
    claims = {"iss": "i", "sub": "s", "roles": [], "scope": ""}
    sent = [("user-agent", "ua"), ("authorization", authorization(claims))]
    call = Call("a", "/a", claims, tuple(sent))
    code, _, err = explained(tmp_path / "policy.json", call, sent[:1])
    assert code == 1
    assert "reads the header authorization, which a caller with a token has: give it" in err
    _, out, _ = explained(tmp_path / "policy.json", call, sent)
    for door in doors.values():
        needed = [("te", "trailers"), ("content-type", "application/grpc")]
        answer = door.ask(Policy.parse(text), "a", "/a", [*needed, *sent])
        assert (answer.allowed, answer.rule) == decided(out) == (False, "no")


def test_G19_a_caller_with_an_authorization_header_is_not_explained_as_anonymous(
    tmp_path: Path,
) -> None:
    (tmp_path / "policy.json").write_text('{"name": "p", "allow_rules": [{"name": "a"}]}')
    call = Call("a", "/a", None, ())
    code, _, err = explained(tmp_path / "policy.json", call, [("Authorization", "Bearer x")])
    assert code == 1
    assert "A call with the header authorization is not anonymous" in err
