"""Which tokens this server can revoke: its own, and those of other issuers.

A revocation is stored under the issuer and ID of the token until the token has expired. Where one
of the three is unknown, or where revoking would not end the credential, OK would be a false
promise: the answer is an error that says who can end it.
"""

from __future__ import annotations

from secure_server.auth.authenticators import (
    Authenticators,
    EndedElsewhere,
    LimitsLifetime,
    VerifiesTokens,
)
from secure_server.auth.credentials import BEARER, Credentials
from secure_server.auth.errors import AuthenticationError, AuthenticatorUnavailable
from secure_server.auth.local_issuer import LocalIssuerAuthenticator
from secure_server.auth.principal import Principal
from secure_server.users.errors import FailedPreconditionError

_NOT_YET = frozenset({"clock", "kid"})
"""Codes of refusals after which a token may still become valid: its validity has not begun, or its
key has not been fetched yet. The keys of this server's own tokens are always known."""


class NotRevocableError(FailedPreconditionError):
    """The credential cannot be revoked by this server; the text says who can."""

    code = "NOT_REVOCABLE"


class Revocable:
    """Decides whether a credential or a token ID can be revoked here, and until when.

    A class because the answer depends on which authenticators this server has.
    """

    def __init__(self, own: LocalIssuerAuthenticator, chain: Authenticators) -> None:
        """``own`` verifies this server's own tokens, even where ``chain`` has no authenticator for
        them.
        """
        self._own = own
        self._chain = chain

    def end_of_caller(self, principal: Principal) -> float:
        """Return when the token of a call expires, in seconds since the epoch.

        Raises ``NotRevocableError`` also for a call without a credential or with one that is not a
        token.
        """
        if principal.is_anonymous:
            raise NotRevocableError("The call has no token: there is nothing to revoke.")
        member = self._chain.named(principal.authenticator)
        if isinstance(member, EndedElsewhere):
            raise NotRevocableError(member.ended_by)
        return self.end_of(principal)

    def end_of(self, principal: Principal) -> float:
        """Return when a token expires, in seconds since the epoch.

        Raises ``NotRevocableError`` for one without an expiry or an ID.
        """
        if not principal.issuer or not principal.token_id:
            raise NotRevocableError(
                "The credential has no ID to revoke it by: end it where it was issued."
            )
        if principal.expires_at is None:
            raise NotRevocableError(
                "The token has no end (`exp`) until which this server could refuse it: revoke it "
                "at its issuer."
            )
        return principal.expires_at

    def verified(self, text: str) -> Principal | None:
        """Return the principal of a bearer token; None where the text is no valid token.

        Raises ``NotRevocableError`` for a token of an unknown issuer or a credential that is not a
        token, and ``AuthenticatorUnavailable`` where its issuer cannot be reached now.
        """
        issuer = None
        try:
            credentials = Credentials.parse(f"{BEARER} {text}")
            issuer = None if credentials.jwt is None else credentials.jwt.claims.get("iss")
            if issuer == self._own.issuer:
                return self._own.verify(text)
            member = self._chain.claimant(credentials)
            if isinstance(member, EndedElsewhere):
                raise NotRevocableError(member.ended_by)
            if isinstance(member, VerifiesTokens):
                return member.verify(text)
        except AuthenticatorUnavailable:
            raise
        except AuthenticationError as error:
            if error.code in _NOT_YET and not (error.code == "kid" and issuer == self._own.issuer):
                raise NotRevocableError(
                    "The token is not good now and may be later, when it has begun or its key is "
                    "known: revoke it then, or at its issuer."
                ) from None
            return None
        if member is None and not isinstance(issuer, str):
            return None
        raise NotRevocableError(
            "This server cannot revoke the tokens of this issuer: revoke it at its issuer."
        )

    def lifetime_of(self, issuer: str) -> float:
        """Return the longest lifetime of an issuer's tokens, in seconds: a revoked ID is refused
        for so long.

        Raises ``NotRevocableError`` for an issuer whose longest lifetime is not known here.
        """
        member = self._own if issuer == self._own.issuer else self._chain.issued_by(issuer)
        if isinstance(member, LimitsLifetime):
            return member.token_lifetime
        raise NotRevocableError(
            "This server cannot revoke a token of this issuer by its ID alone: send the token "
            "itself, or revoke it at its issuer."
        )
