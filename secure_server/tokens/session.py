"""What a session is, for those who may know."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["OpenSession", "Session"]


@dataclass(frozen=True, slots=True)
class Session:
    """A live session with its only good refresh token.

    ``session_id`` is a random UUID. ``refresh_token`` is 43 characters of base64url; it ends at
    ``refresh_expires_at``, seconds since the epoch, unless it is used before. It was alive at
    ``issued_at``: access tokens say that they are of that time, so that a revocation which came
    since then is about them.
    """

    session_id: str
    user_uid: str
    refresh_token: str = field(repr=False)
    refresh_expires_at: float
    issued_at: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """What may be told of a live session. Times are seconds since the epoch."""

    session_id: str
    user_uid: str
    spiffe_id: str
    create_time: float
    last_use_time: float
    expire_time: float
