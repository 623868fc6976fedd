"""Health, reflection and channelz are behind the guard too (group G): a rule must allow them."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from support.house import House, bearer, call, running_house

UA, PD = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CHANNELZ = "/grpc.channelz.v1.Channelz/GetServers"


def raw(house: House, kind: str, method: str, request: Any, token: str = "") -> Any:
    """Call with an empty message of the service's own type: only the status matters here."""
    metadata = bearer(token) if token else ()
    invoke = getattr(house.channel(house.admin), kind)(method, None, None)
    body = request.SerializeToString()
    try:
        answer = invoke(iter([body]) if kind.startswith("stream") else body, metadata=metadata)
        return next(iter(answer)) if kind.endswith("stream") else answer
    except grpc.RpcError as error:
        return error.code()


def test_G15_the_shipped_policy_opens_health_to_every_client(house: House) -> None:
    answer = raw(house, "unary_unary", HEALTH, health_pb2.HealthCheckRequest())
    status = health_pb2.HealthCheckResponse.FromString(answer).status
    assert status == health_pb2.HealthCheckResponse.SERVING


def test_G15_the_shipped_policy_opens_reflection_to_callers_with_a_token(
    house: House, admin_token: str
) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    assert raw(house, "stream_stream", REFLECTION, request) is UA
    answer = raw(house, "stream_stream", REFLECTION, request, admin_token)
    listed = reflection_pb2.ServerReflectionResponse.FromString(answer).list_services_response
    assert "secure_api.users.v1.UserService" in {service.name for service in listed.service}


def test_G15_channelz_is_no_exception(house: House, admin_token: str) -> None:
    assert raw(house, "unary_unary", CHANNELZ, health_pb2.HealthCheckRequest()) is UA
    refused = raw(house, "unary_unary", CHANNELZ, health_pb2.HealthCheckRequest(), admin_token)
    assert refused is PD


@pytest.mark.parametrize(
    ("kind", "method"), [("unary_unary", HEALTH), ("stream_stream", REFLECTION)]
)
def test_G15_without_a_rule_they_are_refused_like_anything_else(
    tmp_path: Path, kind: str, method: str
) -> None:
    shipped = resources.files("secure_server").joinpath("policy.json").read_text("utf-8")
    policy = json.loads(shipped)
    for rule in policy["allow_rules"]:
        paths = rule["request"]["paths"]
        rule["request"]["paths"] = [path for path in paths if path.startswith("/secure_api.")]
    policy["allow_rules"] = [rule for rule in policy["allow_rules"] if rule["request"]["paths"]]
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    with running_house(tmp_path, '[policy]\nfile = "policy.json"\n') as house:
        token = house.forge.token(house.admin.thumbprint)
        assert call(house.channel(house.admin), metadata=bearer(token)).served
        assert raw(house, kind, method, health_pb2.HealthCheckRequest()) is UA
        assert raw(house, kind, method, health_pb2.HealthCheckRequest(), token) is PD
