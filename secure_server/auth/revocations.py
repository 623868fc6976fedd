"""The guard's view of what is revoked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from secure_server.auth.principal import Principal


class Revocations(Protocol):
    """A view of what is revoked: tokens, sessions, users and clients, each of one issuer.

    ``generation`` changes whenever the view does; while it stays the same, so do the answers.
    Every call asks: look-ups only, no lock and no I/O.
    """

    @property
    def generation(self) -> int: ...

    @property
    def is_current(self) -> bool:
        """Whether the view is fresh enough; calls with credentials are refused while it is not."""
        ...

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change`` after every change of the view; return a function that unsubscribes.

        It runs on the thread that noticed the change and must not block.
        """
        ...

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the principal's token, session, user or client is revoked at its own issuer.

        The same ID at another issuer does not count.
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
