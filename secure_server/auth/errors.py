"""Why a caller was not recognised. The text goes to audit, never to the caller."""

from __future__ import annotations


class AuthenticationError(Exception):
    """The credentials are refused: final, no other authenticator is asked.

    ``code`` is a short machine code for audit and metrics (``expired``, ``signature``, …);
    ``claims`` holds unverified claims of the credential.
    """

    def __init__(self, code: str, message: str, *, claims: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.claims = claims or {}


class AuthenticatorUnavailable(AuthenticationError):  # noqa: N818 - a condition, not a fault
    """The credentials cannot be verified now; the caller may retry."""


class AuthenticatorError(Exception):
    """An authenticator cannot be used as it is configured; the message says why and what to do."""
