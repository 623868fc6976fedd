"""Values that describe a session."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["OpenSession", "Session"]


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was just opened or renewed, with its one valid refresh token.

    ``session_id`` is a random UUID. ``refresh_token`` is 43 characters of base64url; it expires at
    ``refresh_expires_at``, in seconds since the epoch, unless it is used before. The session was
    alive at ``issued_at``, which becomes the ``iat`` of its access tokens: a revocation after that
    moment ends them.
    """

    session_id: str
    user_uid: str
    refresh_token: str = field(repr=False)
    refresh_expires_at: float
    issued_at: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A live session as it is listed, without secrets. Times are in seconds since the epoch."""

    session_id: str
    user_uid: str
    spiffe_id: str
    create_time: float
    last_use_time: float
    expire_time: float
