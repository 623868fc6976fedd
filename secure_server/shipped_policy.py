"""The policy that comes with the server, and the methods that each policy of it must name."""

from __future__ import annotations

from importlib import resources

from secure_api.tokens.v1 import token_service_pb2
from secure_api.users.v1 import user_service_pb2
from secure_server.authz import Policy
from secure_server.config import ConfigError

SHIPPED_METHODS = tuple(
    f"/{service.full_name}/{method.name}"
    for file in (user_service_pb2.DESCRIPTOR, token_service_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
)
"""The methods of the identity service."""


def shipped_policy() -> Policy:
    """Return the policy that comes with the server."""
    text = resources.files("secure_server").joinpath("policy.json").read_text("utf-8")
    return Policy.parse(text, origin="the shipped policy.json")


def check_every_method_has_a_rule(policy: Policy) -> None:
    """Refuse a policy that forgets a method of ours, which would be denied to all without a word.

    Raises ``ConfigError``.
    """
    if forgotten := [method for method in SHIPPED_METHODS if not policy.names(method)]:
        raise ConfigError(
            f"The policy {policy.name!r} has no rule for {', '.join(forgotten)}. Add one; a deny "
            "rule says that it is meant so."
        )
