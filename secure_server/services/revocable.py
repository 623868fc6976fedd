"""What this server can revoke, of its own tokens and of other issuers'.

A revocation is kept under the issuer and the ID of the token, until the token has ended. Where one
of these is not known, or where the credential does not end by it, an OK would be a false promise:
then the answer is an error that says who can end it.
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
"""A token that is refused so may become good: it has not begun, or its key is not known yet. Our
own keys are all known."""


class NotRevocableError(FailedPreconditionError):
    """The credential cannot be ended by this server; the text says how it is."""

    code = "NOT_REVOCABLE"


class Revocable:
    """Says of a caller, a token or an ID whether it can be revoked here, and until when.

    A class because the answer depends on which authenticators this server has.
    """

    def __init__(self, own: LocalIssuerAuthenticator, chain: Authenticators) -> None:
        """``own`` recognises our own tokens, also where ``chain`` admits no caller by them."""
        self._own = own
        self._chain = chain

    def end_of_caller(self, principal: Principal) -> float:
        """When the token of a call ends by itself, in seconds since the epoch.

        Raises ``NotRevocableError`` also for a call with a credential that is no token, or with
        none.
        """
        if principal.is_anonymous:
            raise NotRevocableError("The call has no token: there is nothing to revoke.")
        member = self._chain.named(principal.authenticator)
        if isinstance(member, EndedElsewhere):
            raise NotRevocableError(member.ended_by)
        return self.end_of(principal)

    def end_of(self, principal: Principal) -> float:
        """When a token ends by itself, in seconds since the epoch.

        Raises ``NotRevocableError`` for one that has no end or no ID.
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
        """Whom a bearer token vouches for; None where it is no live token.

        Raises ``NotRevocableError`` for a token of an issuer that is not known here or a credential
        that is no token, and ``AuthenticatorUnavailable`` where its issuer cannot be asked now.
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
        """The longest that a token of an issuer lives, in seconds: so long its ID is refused.

        Raises ``NotRevocableError`` for an issuer of which that is not known here.
        """
        member = self._own if issuer == self._own.issuer else self._chain.issued_by(issuer)
        if isinstance(member, LimitsLifetime):
            return member.token_lifetime
        raise NotRevocableError(
            "This server cannot revoke a token of this issuer by its ID alone: send the token "
            "itself, or revoke it at its issuer."
        )
