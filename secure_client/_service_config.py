"""The gRPC service config of a channel: load balancing, and retries where they are safe."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from secure_api.tokens.v1 import token_service_pb2
from secure_api.users.v1 import user_service_pb2
from secure_client.errors import ConfigurationError

IdempotentMethods: TypeAlias = Iterable[ServiceDescriptor | str]

_SHIPPED = (
    token_service_pb2.DESCRIPTOR.services_by_name["TokenService"],
    user_service_pb2.DESCRIPTOR.services_by_name["UserService"],
)

# Only UNAVAILABLE: with every other status the handler may have begun (gRFC A6).
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def service_config(more: IdempotentMethods = ()) -> str:
    """The service config in JSON (grpc.service_config.ServiceConfig).

    gRPC retries the methods whose option ``idempotency_level`` allows it, of the shipped services
    and of the services in ``more``, and the methods in ``more`` named ``package.Service/Method``.
    Raises ``ConfigurationError`` for a name of another shape.
    """
    names = [name for each in (*_SHIPPED, *more) for name in _names(each)]
    config: dict[str, Any] = {
        # Over all addresses, so that no call fails when one replica is replaced.
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": _RETRY_POLICY}],
        # Retries must not multiply the load of a failing server by four.
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
    return json.dumps(config)


def _names(each: ServiceDescriptor | str) -> list[dict[str, str]]:
    if not isinstance(each, str):
        return [
            {"service": each.full_name, "method": method.name}
            for method in each.methods
            if method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN
        ]
    service, slash, method = each.removeprefix("/").partition("/")
    if not service or not slash or not method or "/" in method:
        raise ConfigurationError(
            f"{each!a} names no method: write package.Service/Method, or give the descriptor of "
            "the service."
        )
    return [{"service": service, "method": method}]
