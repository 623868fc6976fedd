"""Errors of the rules for users and passwords.

``code`` is for machines and written like the ``reason`` of AIP-193. Texts are for the caller: they
say what to do, and contain neither passwords nor what the caller may not know.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AbortedError",
    "AlreadyBootstrappedError",
    "AlreadyExistsError",
    "BadCredentialsError",
    "FailedPreconditionError",
    "InvalidArgumentError",
    "LastAdministratorError",
    "NotFoundError",
    "OutOfRangeError",
    "OverloadedError",
    "PasswordChangeRequiredError",
    "PermissionDeniedError",
    "UserError",
]


class UserError(Exception):
    """A request breaks a rule for users or passwords."""

    code: ClassVar[str] = "USER_ERROR"


class NotFoundError(UserError):
    """There is no such user."""

    code = "USER_NOT_FOUND"


class AlreadyExistsError(UserError):
    """The user name is taken."""

    code = "USER_ALREADY_EXISTS"


class InvalidArgumentError(UserError):
    """A field breaks its rule. ``field`` is its name in ``user_service.proto``."""

    code = "INVALID_FIELD"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class AbortedError(UserError):
    """The etag is stale: another caller has changed the user meanwhile (AIP-154)."""

    code = "STALE_ETAG"


class FailedPreconditionError(UserError):
    """The request is not possible in the present state."""

    code = "FAILED_PRECONDITION"


class LastAdministratorError(FailedPreconditionError):
    """The change would leave no active administrator."""

    code = "LAST_ADMINISTRATOR"


class AlreadyBootstrappedError(FailedPreconditionError):
    """There is an administrator already."""

    code = "ALREADY_BOOTSTRAPPED"


class PasswordChangeRequiredError(FailedPreconditionError):
    """The password is right but initial: this log-in must replace it."""

    code = "PASSWORD_CHANGE_REQUIRED"


class PermissionDeniedError(UserError):
    """The current password is wrong."""

    code = "WRONG_CURRENT_PASSWORD"


class BadCredentialsError(UserError):
    """The log-in failed. The text is the same for every reason, so that it reveals none."""

    code = "CREDENTIALS_REFUSED"

    def __init__(self) -> None:
        super().__init__("The user name or the password is wrong.")


class OverloadedError(UserError):
    """Too many passwords are waiting to be hashed."""

    code = "OVERLOADED"


class OutOfRangeError(UserError):
    """The changes after this number have been pruned, or the number was never given."""

    code = "CHANGES_NOT_KEPT"
