"""A value that may change, and a way to hear of the change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

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


@dataclass(frozen=True, slots=True)
class Static(Generic[T]):
    """A value that never changes."""

    value: T

    def subscribe(self, told: Callable[[T], object]) -> Callable[[], None]:  # noqa: ARG002 - there is nothing to tell
        """Return what ends the subscription: it does nothing."""
        return _nothing


def _nothing() -> None:
    return
