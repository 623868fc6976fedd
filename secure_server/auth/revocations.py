"""What the guard asks about tokens that were good once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from secure_server.auth.principal import Principal


class Revocations(Protocol):
    """A view of what is revoked: tokens, sessions, users and clients, each of one issuer.

    ``generation`` changes whenever the view does; as long as it stays, an answer given stays true.
    All are asked on the way of every call: look-ups only, no lock and no I/O.
    """

    @property
    def generation(self) -> int: ...

    @property
    def is_current(self) -> bool:
        """Whether the view is fresh enough to go by: where it is not, nobody can tell who may."""
        ...

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` after every change of the view; return what ends that.

        It runs on the thread that noticed the change and must not block.
        """
        ...

    def is_revoked(self, principal: Principal) -> bool:
        """Whether its issuer's token is revoked, or its session, user or client. What another
        issuer's has the same ID of says nothing about it.
        """
        ...


class NothingRevoked:
    """For servers whose authenticators issue nothing that this process could revoke."""

    generation = 0
    is_current = True

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002
        return _nothing

    def is_revoked(self, principal: Principal) -> bool:  # noqa: ARG002
        return False


def _nothing() -> None:
    return
