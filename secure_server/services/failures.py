"""Errors of the rooms below, as gRPC callers get them (AIP-193)."""

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
"""Seconds that the writes of a call wait for the store's write lock: the caller of a store that is
locked learns it within a second."""

_LAST_WORD = 0.1
"""Seconds before the caller's deadline in which it is told; less of a deadline that is near."""

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
    """A field of the request that only the gRPC face knows breaks its rule."""


class NotAllowedError(Exception):
    """The own-record rule says no. One text, so that it tells nothing (AIP-211)."""

    code = "NOT_ALLOWED"

    def __init__(self) -> None:
        super().__init__("The caller may not do this to this resource.")


def status_of(error: users.UserError) -> grpc.StatusCode:
    """Return the status that stands for an error of the users' room."""
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def abort(context: Any, error: Exception) -> NoReturn:
    """End the call with the status, text and reason of an error of ours."""
    match error:
        case users.UserError():
            code, text, reason = status_of(error), str(error), error.code
        case NotAllowedError():
            code, text, reason = grpc.StatusCode.PERMISSION_DENIED, str(error), error.code
        case SessionError():
            # Which of the reasons it was would help a thief more than an owner.
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
    """End a stream because the server goes away."""
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
    """Have writes give up while the caller can still be told."""
    remaining = context.time_remaining()
    if remaining is None:
        until = float("inf")
    else:
        until = time.monotonic() + remaining - min(_LAST_WORD, 0.2 * remaining)
    with waiting_at_most(WRITE_PATIENCE, until=until):
        yield


@contextmanager
def answering(context: Any) -> Iterator[None]:
    """Turn errors of the rooms below into the status of the call."""
    try:
        yield
    except _OURS as error:
        abort(context, error)


def answers(method: F) -> F:
    """Do so around a method that returns one message."""

    @wraps(method)
    def answered(self: Any, request: Any, context: Any) -> Any:
        with answering(context), waiting(context):
            return method(self, request, context)

    return answered  # type: ignore[return-value]
