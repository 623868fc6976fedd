"""The errors of this package. No message and no attribute holds a secret.

Each message is written for people: what went wrong, where, and what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from pathlib import Path


class ClientError(Exception):
    """The root of every error of this package."""


class ConfigurationError(ClientError):
    """A setting is missing or makes no sense; nothing was sent."""


class ProfileError(ClientError):
    """A file of the profile folder, named by ``path``, cannot be read, trusted or written."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class CallError(ClientError):
    """A call ended with a status other than OK.

    ``code`` is the gRPC status, ``details`` its text and ``reason`` that of the first
    ``google.rpc.ErrorInfo`` (AIP-193), else empty. ``details`` comes from the
    network: escape it before printing.
    """

    def __init__(self, code: grpc.StatusCode, details: str = "", reason: str = "") -> None:
        super().__init__(f"The server answered {code.name}.")
        self.code = code
        self.details = details
        self.reason = reason

    @classmethod
    def of(cls, error: grpc.RpcError) -> Self:
        """Convert an ``RpcError``, whose ``repr`` may hold the request."""
        return cls(error.code(), error.details() or "", _reason(error))


class TokenError(ClientError):
    """There is no access token.

    ``cause`` is the server's answer, None where it was not asked.
    """

    def __init__(self, message: str, cause: CallError | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class NotLoggedInError(TokenError):
    """There is no session."""


class SessionEndedError(TokenError):
    """The server refuses the session's refresh token: only a log-in helps."""


class TokenRefusedError(TokenError):
    """The server refuses to issue a token; asking again does not help."""


class TokenUnavailableError(TokenError):
    """The token could not be fetched now; asking again may help."""


def _reason(error: Any) -> str:
    metadata = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    packed = dict(metadata or ()).get("grpc-status-details-bin", b"")
    try:
        status = status_pb2.Status.FromString(packed)
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
                return str(info.reason)
    except DecodeError:
        # ErrorInfo is optional; the status is enough.
        pass
    return ""
