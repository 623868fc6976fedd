"""Translation of the errors of users, tokens and store into gRPC statuses (AIP-193)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc

from secure_server import logs
from secure_server.auth.errors import AuthenticatorUnavailable
from secure_server.guard.refusal import Answer
from secure_server.guard.status import answer_of, trailers
from secure_server.store.errors import StoreError
from secure_server.store.lock_wait import waiting_at_most
from secure_server.tokens.errors import RevokedTooOftenError, SessionError
from secure_server.users import errors as users

F = TypeVar("F", bound=Callable[..., Any])

WRITE_PATIENCE = 0.8
"""Seconds that all writes of a call together may wait for the store's write lock, so that a call to
a locked store is answered within a second."""

_LAST_WORD = 0.1
"""Seconds before the caller's deadline when waiting ends, for the error to reach the caller in
time; a fifth of the time that is left where that is less."""

_CODES: dict[type[Exception], grpc.StatusCode] = {
    users.NotFoundError: grpc.StatusCode.NOT_FOUND,
    users.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    users.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    users.AbortedError: grpc.StatusCode.ABORTED,
    users.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    users.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    users.BadCredentialsError: grpc.StatusCode.UNAUTHENTICATED,
    users.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    users.OutOfRangeError: grpc.StatusCode.OUT_OF_RANGE,
}


class InvalidRequestError(users.InvalidArgumentError):
    """A field breaks a rule that only the gRPC services have, not the users' own rules."""


class NotAllowedError(Exception):
    """The own-record rule refuses the call. The text is always the same, so that it does not tell
    whether the resource exists (AIP-211).
    """

    code = "NOT_ALLOWED"

    def __init__(self) -> None:
        super().__init__("The caller may not do this to this resource.")


def status_of(error: users.UserError) -> grpc.StatusCode:
    """Return the gRPC status code for an error of ``secure_server.users``."""
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def abort(context: Any, error: Exception) -> NoReturn:
    """End the call with the status, text and reason of one of this server's errors."""
    match error:
        case users.UserError():
            code, text, reason = status_of(error), str(error), error.code
        case NotAllowedError():
            code, text, reason = grpc.StatusCode.PERMISSION_DENIED, str(error), error.code
        case SessionError():
            # The exact reason would help a thief more than the owner of the token.
            code, reason = grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_REFUSED"
            text = "The refresh token was refused: log in again."
        case RevokedTooOftenError():
            code, text, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), error.code
        case AuthenticatorUnavailable():
            code, reason = grpc.StatusCode.UNAVAILABLE, "ISSUER_UNAVAILABLE"
            text = "The token cannot be verified now: try again later."
        case _:
            code, reason = grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"
            text = "The server cannot reach its database: try again later."
            logs.logger(__name__).error("the store failed", detail=str(error))
    field = getattr(error, "field", "")
    context.set_trailing_metadata(trailers(code, text, reason, {"field": field} if field else None))
    context.abort(code, text)
    raise AssertionError  # abort() has raised


def abort_stopping(context: Any) -> NoReturn:
    """End a stream because the server is stopping."""
    code, text, why = answer_of(Answer.SERVER_ROTATING)
    context.set_trailing_metadata(why)
    context.abort(code, text)
    raise AssertionError  # abort() has raised


_OURS = (
    users.UserError,
    SessionError,
    StoreError,
    NotAllowedError,
    RevokedTooOftenError,
    AuthenticatorUnavailable,
)


@contextmanager
def waiting(context: Any) -> Iterator[None]:
    """Make writes of the block give up soon enough for the error to reach the caller in time."""
    remaining = context.time_remaining()
    if remaining is None:
        until = float("inf")
    else:
        until = time.monotonic() + remaining - min(_LAST_WORD, 0.2 * remaining)
    with waiting_at_most(WRITE_PATIENCE, until=until):
        yield


@contextmanager
def answering(context: Any) -> Iterator[None]:
    """End the call with a status where the block raises one of this server's errors."""
    try:
        yield
    except _OURS as error:
        abort(context, error)


def answers(method: F) -> F:
    """Decorate a method that returns one message with ``answering`` and ``waiting``."""

    @wraps(method)
    def answered(self: Any, request: Any, context: Any) -> Any:
        with answering(context), waiting(context):
            return method(self, request, context)

    return answered  # type: ignore[return-value]
