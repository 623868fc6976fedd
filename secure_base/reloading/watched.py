"""A value that may change, and a way to hear of the change."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from secure_base.reloading.status import ReloadStatus

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Watched(Protocol[T_co]):
    """What go-spiffe and grpc-go's ``advancedtls`` call a source."""

    @property
    def value(self) -> T_co:
        """The current value: an immutable snapshot, read without a lock."""
        ...

    def subscribe(self, told: Callable[[T_co], object]) -> Callable[[], None]:
        """Call ``told`` with each new value, on the thread that loads it; return what ends that."""
        ...


class OnDemand(Watched[T_co], Protocol[T_co]):
    """A value that a caller who misses something in it can have loaded."""

    @property
    def status(self) -> ReloadStatus:
        """How the loading went."""
        ...

    def want(self, waiting: Callable[[], AbstractContextManager[object]] = ...) -> bool:
        """Have the value loaded if that may help, and wait for it.

        ``waiting`` is held while the caller waits for a network, and may raise. Returns False
        where it takes too long.
        """
        ...


@dataclass(frozen=True, slots=True)
class Static(Generic[T]):
    """A value that never changes."""

    value: T

    def subscribe(self, told: Callable[[T], object]) -> Callable[[], None]:  # noqa: ARG002 - there is nothing to tell
        """Return what ends the subscription: it does nothing."""
        return _nothing


def _nothing() -> None:
    return
