"""After a ``WatchUsers`` stream has ended: whether, when and where to resume."""

from __future__ import annotations

import logging
import random
import time

import grpc

from secure_api.users.v1 import user_service_pb2 as pb
from secure_client.errors import (
    NotLoggedInError,
    SessionEndedError,
    TokenError,
    TokenRefusedError,
)

_logger = logging.getLogger("secure_client.users")

NOT_OURS = "watch_users needs the channel that {connect} returns: only that one can renew tokens."

# Seconds. After a shorter stream the next one is not opened at once.
_STOOD = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0

# The server stops, is down or overloaded, or the client read too slowly.
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }
)
# After these there will be no token later either.
_FINAL = (NotLoggedInError, SessionEndedError, TokenRefusedError)

# The first attempt may have sent a token revoked meanwhile; the second sends a fresh one.
_MOST_REFUSALS = 2


class Resuming:
    """One watch across its streams, with the resume token of the last message.

    ``begun``: whether any message has arrived.
    """

    def __init__(self, resume_token: str) -> None:
        self._resume_token = resume_token
        self.begun = False
        self._stands_since: float | None = None
        self._refusals = 0
        self._pause = 0.0
        self._told = False

    def request(self) -> pb.WatchUsersRequest:
        return pb.WatchUsersRequest(resume_token=self._resume_token)

    def hear(self, message: pb.WatchUsersResponse) -> bool:
        """Resume after ``message`` from now on; return whether the caller gets it.

        ``CHANGE_WATCHING`` is passed on once only.
        """
        is_news = message.change != pb.WatchUsersResponse.CHANGE_WATCHING or not self.begun
        if self._stands_since is None:
            self._stands_since = time.monotonic()
            self._refusals = 0
        if self._told:
            _logger.info("the watch on users goes on.")
        self.begun, self._told = True, False
        self._resume_token = message.resume_token
        return is_news

    def pause(self, error: grpc.RpcError | TokenError | None) -> float | None:
        """Seconds until the next stream, None where ``error`` ends the watch.

        ``error`` ended the stream or prevented it; None where the server ended it with OK.
        """
        since, self._stands_since = self._stands_since, None
        if since is None and is_refusal(error):
            self._refusals += 1
        if since is not None:
            self._pause = 0.0 if time.monotonic() - since >= _STOOD else _FIRST_PAUSE
        if not self._may_go_on(error):
            return None
        pause = self._pause
        self._pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        if pause and not self._told and not is_refusal(error):
            self._told = True
            _logger.warning(
                "the watch on users is interrupted (%s); it goes on from where it was as soon as "
                "that is possible.",
                _named(error),
            )
        # Jitter: after a restart not all clients return to the server at once.
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - it keeps no secret

    def _may_go_on(self, error: grpc.RpcError | TokenError | None) -> bool:
        if is_refusal(error):
            return self._refusals < _MOST_REFUSALS
        if error is None:
            return True
        # A watch that fails before its first message is a mistake: the caller learns it at once.
        if not self.begun:
            return False
        if isinstance(error, TokenError):
            return not isinstance(error, _FINAL)
        return error.code() in _PASSING


def is_refusal(error: grpc.RpcError | TokenError | None) -> bool:
    """Whether the server refuses the token, from the start or after its revocation."""
    return isinstance(error, grpc.RpcError) and error.code() is grpc.StatusCode.UNAUTHENTICATED


def _named(error: grpc.RpcError | TokenError | None) -> str:
    # Without the text of the status: it comes from the network.
    if isinstance(error, grpc.RpcError):
        return str(error.code().name)
    if isinstance(error, TokenError):
        return error.cause.code.name if error.cause is not None else str(error).rstrip(".")
    return "OK"
