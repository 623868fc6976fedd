"""The methods that a policy's server has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from secure_server.authz.rule import Rule

_SHIPPED_PACKAGES = "/secure_api."


class MethodsError(ValueError):
    """The methods cannot be read."""


def about_shipped(rules: Iterable[Rule]) -> bool:
    """Whether some rule is written for the identity service."""
    return any(
        path.startswith(_SHIPPED_PACKAGES)
        for rule in rules
        if rule.paths is not None
        for path in (*rule.paths.exact, *rule.paths.prefixes)
    )


def methods_of(descriptor_set: Path) -> list[str]:
    """Read what ``protoc --descriptor_set_out`` wrote. Raises `MethodsError`."""
    try:
        files = FileDescriptorSet.FromString(descriptor_set.read_bytes())
    except OSError as error:
        raise MethodsError(f"{descriptor_set}: cannot read: {error.strerror}.") from None
    except DecodeError:
        raise MethodsError(
            f"{descriptor_set}: is no descriptor set: make one with protoc --descriptor_set_out."
        ) from None
    methods = [
        f"/{'.'.join(filter(None, (file.package, service.name)))}/{method.name}"
        for file in files.file
        for service in file.service
        for method in service.method
    ]
    if not methods:
        raise MethodsError(f"{descriptor_set}: holds no service.")
    return methods
