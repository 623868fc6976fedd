"""Errors of sessions and revocations."""

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
    """A session was not opened or not renewed. Callers get UNAUTHENTICATED for all of these."""

    code: ClassVar[str] = "SESSION_ERROR"


class SessionRefusedError(SessionError):
    """The user was deleted or disabled."""

    code = "SESSION_REFUSED"


class RefreshRefusedError(SessionError):
    """The refresh token is unknown or expired, its session has ended, or two or more refreshes
    that began at the same time were faster. The session is not ended.
    """

    code = "REFRESH_REFUSED"


class MisusedError(SessionError):
    """A refresh token was misused, so its session has been ended. ``session_id`` and ``user_uid``
    are for the audit log.
    """

    def __init__(self, message: str, *, session_id: str, user_uid: str) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.user_uid = user_uid


class RefreshReusedError(MisusedError):
    """The refresh token was used before: two parties have it. The session has been ended."""

    code = "REFRESH_TOKEN_REUSED"


class RefreshStolenError(MisusedError):
    """The refresh token came from another SPIFFE ID. The session has been ended."""

    code = "REFRESH_TOKEN_STOLEN"


class RevokedTooOftenError(Exception):
    """The tokens of a user or a client have been revoked more than once a second for so long that
    the ``iat`` of their next token would be too far in the future.
    """

    code = "REVOKED_TOO_OFTEN"
