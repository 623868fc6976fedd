"""How an authenticator is found, configured and built: the protocol for plug-ins, version 1.

A package announces its kinds of authenticators as entry points in the group
``secure_server.authenticators``; each names an ``AuthenticatorType``. Those of this project are
announced in the same way.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from secure_base.reloading import Reloads
from secure_server.auth.authenticators import Authenticator
from secure_server.auth.bulkhead import Bulkhead
from secure_server.auth.cache_epoch import CacheEpoch
from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.keys import FindKey

API_VERSION = 1
GROUP = "secure_server.authenticators"

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class LocalIssuer:
    """The tokens that ``[tokens]`` describes: this server's own, or its identity service's."""

    issuer: str
    audience: str
    keys: FindKey


@dataclass(frozen=True, slots=True)
class Grant:
    """What ``[[workloads]]`` grants to a workload."""

    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AuthenticatorContext:
    """What an authenticator is built with, besides its own settings.

    ``name`` must become its ``name``. ``clock`` gives seconds since the epoch. Hold ``bulkhead``
    while a call waits for a network: ``with context.bulkhead.waiting(): …``.
    ``cache_epoch.advance()`` makes the guard authenticate every cached caller again, for example
    when keys were withdrawn. ``own`` is None where this server has no tokens of its own.
    ``reloads.follow(source)`` reloads files when they change, and ``reloads.add(status)`` shows
    other reloads in health, metrics and log: see ``secure_base.reloading``. In a test, name and
    clock suffice.
    """

    name: str
    clock: Callable[[], float]
    bulkhead: Bulkhead = field(default_factory=lambda: Bulkhead(1))
    cache_epoch: CacheEpoch = field(default_factory=CacheEpoch)
    own: LocalIssuer | None = None
    workloads: Mapping[str, Grant] = field(default_factory=lambda: MappingProxyType({}))
    reloads: Reloads = field(default_factory=Reloads)


@dataclass(frozen=True, slots=True)
class AuthenticatorType(Generic[S]):
    """One ``type`` of ``[[authenticators]]``.

    ``settings`` is the model of the table's other keys, a ``secure_server.Settings``: relative
    paths (``secure_server.File``) count from the configuration, and mistakes are reported with
    their line. ``build`` makes the authenticator; it may raise ``AuthenticatorError``, and should
    not wait for a network.
    """

    settings: type[S]
    build: Callable[[S, AuthenticatorContext], Authenticator]
    # Not API_VERSION: a plug-in that does not set it was written for version 1.
    api_version: int = 1


def find_type(name: str) -> AuthenticatorType[Any]:
    """Return the type of this name. Raises ``ValueError`` with a sentence for people."""
    announced = entry_points(group=GROUP)
    found = {point.value: point for point in announced.select(name=name)}
    if not found:
        names = sorted(announced.names)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise ValueError(f"is no type of authenticator that is installed; {hint}")
    places = [_place(point) for _, point in sorted(found.items())]
    if len(found) > 1:
        raise ValueError(
            f"is ambiguous: {' and '.join(places)} both provide {name!r}; uninstall one of them"
        )
    (point,), (place,) = found.values(), places
    try:
        kind = point.load()
    except Exception as error:  # importing a plug-in may raise anything
        raise ValueError(
            f"cannot be loaded from {place}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(kind, AuthenticatorType):
        raise ValueError(f"is not an AuthenticatorType in {place}")  # noqa: TRY004
    if kind.api_version != API_VERSION:
        raise ValueError(
            f"was written for version {kind.api_version} of the plug-in protocol, and this is "
            f"version {API_VERSION}: install a release of {place} that goes with it"
        )
    return kind


def _place(point: EntryPoint) -> str:
    """Name the package to uninstall and the object it announces."""
    package = "" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    return f"{package} ({point.value})"


def build(
    kind: AuthenticatorType[Any], settings: BaseModel, context: AuthenticatorContext
) -> Authenticator:
    """Build an authenticator. Raises ``AuthenticatorError`` with its name."""
    try:
        return kind.build(settings, context)
    except AuthenticatorError as error:
        raise AuthenticatorError(f"The authenticator {context.name!r}: {error}") from None
