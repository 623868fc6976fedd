"""What the guard asks about tokens that were good once."""

from __future__ import annotations

from typing import Protocol


class Revocations(Protocol):
    """A view of the revoked tokens and sessions.

    ``generation`` changes whenever the view does; as long as it stays, an answer given stays true.
    Both are asked on the way of every call: look-ups only, no lock and no I/O.
    """

    @property
    def generation(self) -> int: ...

    def is_revoked(self, token_id: str, session_id: str) -> bool: ...


class NothingRevoked:
    """For servers whose authenticators issue nothing that this process could revoke."""

    generation = 0

    def is_revoked(self, token_id: str, session_id: str) -> bool:  # noqa: ARG002
        return False
