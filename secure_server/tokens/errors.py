"""Why a session was not opened or not continued."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "MisusedError",
    "RefreshRefusedError",
    "RefreshReusedError",
    "RefreshStolenError",
    "RevokedTooOftenError",
    "SessionError",
    "SessionRefusedError",
]


class SessionError(Exception):
    """A session was not opened or not continued. To the caller all are UNAUTHENTICATED."""

    code: ClassVar[str] = "SESSION_ERROR"


class SessionRefusedError(SessionError):
    """The user is gone or disabled."""

    code = "SESSION_REFUSED"


class RefreshRefusedError(SessionError):
    """The refresh token is unknown or expired, its session has ended, or others that began
    at the same time were faster, more than once. The session is left as it is.
    """

    code = "REFRESH_REFUSED"


class MisusedError(SessionError):
    """The session has been ended. ``session_id`` and ``user_uid`` are for the audit."""

    def __init__(self, message: str, *, session_id: str, user_uid: str) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.user_uid = user_uid


class RefreshReusedError(MisusedError):
    """The refresh token had been used: it is in two hands. The session has been ended."""

    code = "REFRESH_TOKEN_REUSED"


class RefreshStolenError(MisusedError):
    """The refresh token came from another SPIFFE ID. The session has been ended."""

    code = "REFRESH_TOKEN_STOLEN"


class RevokedTooOftenError(Exception):
    """A user's or a client's tokens have been revoked more often than once a second for so long
    that what is issued to them next would be from too far in the future.
    """

    code = "REVOKED_TOO_OFTEN"
