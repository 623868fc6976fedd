"""The chain of authenticators: who is asked about which credentials."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from secure_base.reloading import Reloads
from secure_server import logs
from secure_server.auth import matchers
from secure_server.auth.cache_epoch import CacheEpoch
from secure_server.auth.credentials import BEARER, Credentials
from secure_server.auth.errors import AuthenticationError, AuthenticatorError
from secure_server.auth.matchers import (
    BareCertificate,
    CredentialMatcher,
    IssuedBy,
    Opaque,
    Prefix,
    Scheme,
)
from secure_server.auth.principal import ANONYMOUS, Principal
from secure_tls.peer import Peer


class Authenticator(Protocol):
    """Recognises callers by one kind of credentials.

    It is asked about credentials that match one of its ``matchers``, and about no others.
    ``authenticate`` returns the principal; None for "none of mine", which lets the next one try; or
    raises ``AuthenticationError``, which is final. It is called from many threads at once, and what
    it returns is remembered until ``Principal.expires_at`` or ``recheck_at``. ``credentials`` is
    None for a call with a client certificate and no credential.

    It may also have ``check() -> str``, which fetches what can be fetched and says in a sentence
    what would be accepted, for `secure-server check`; ``close()``; and what ``VerifiesTokens``,
    ``LimitsLifetime`` or ``EndedElsewhere`` have, for those who revoke.
    """

    @property
    def name(self) -> str: ...

    @property
    def matchers(self) -> Collection[CredentialMatcher]: ...

    def authenticate(
        self, credentials: Credentials | None, peer: Peer | None
    ) -> Principal | None: ...


@runtime_checkable
class VerifiesTokens(Authenticator, Protocol):
    """An authenticator that recognises a bearer token wherever it comes from."""

    def verify(self, text: str) -> Principal:
        """Say whom a token vouches for, over whichever certificate. Never for admission.

        Raises ``AuthenticationError``.
        """
        ...


@runtime_checkable
class LimitsLifetime(Authenticator, Protocol):
    """An authenticator that refuses tokens which live longer than some time."""

    @property
    def token_lifetime(self) -> float:
        """Seconds; no token that it ever accepts lives longer, however it is configured."""
        ...


@runtime_checkable
class EndedElsewhere(Authenticator, Protocol):
    """An authenticator whose credentials are no tokens, so that revoking an ID ends none."""

    ended_by: str
    """A sentence for callers: how such a credential is ended."""


class Authenticators:
    """Asks those whose matchers fit the credentials. Credentials that nobody claims are refused."""

    def __init__(
        self,
        chain: Sequence[Authenticator],
        cache_epoch: CacheEpoch | None = None,
        reloads: Reloads | None = None,
        closing: Sequence[object] = (),
    ) -> None:
        """Raises ``AuthenticatorError`` for two that claim the same, or have the same name.

        ``cache_epoch`` is advanced by the members of the chain when cached answers become invalid;
        ``closing`` is what to close with them.
        """
        self.members = tuple(chain)
        self._closing = (*self.members, *closing)
        self.cache_epoch = cache_epoch or CacheEpoch()
        self.reloads = reloads or Reloads(logs.log_reload)
        _check(self.members)
        self._issuers: dict[str, Authenticator] = {}
        self._prefixes: list[tuple[str, Authenticator]] = []
        self._schemes: dict[str, Authenticator] = {}
        self._opaque: Authenticator | None = None
        self._bare: Authenticator | None = None
        for member in self.members:
            for matcher in member.matchers:
                self._file(matcher, member)

    @property
    def asks_about_certificates(self) -> bool:
        """Whether a call without a credential is anybody's business."""
        return self._bare is not None

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal:
        """Return the principal, ``ANONYMOUS`` where there are no credentials and nobody knows the
        certificate, or raise ``AuthenticationError``.
        """
        if credentials is None:
            bare = self._bare
            known = None if bare is None or peer is None else bare.authenticate(None, peer)
            return ANONYMOUS if known is None else known
        for authenticator in self._candidates(credentials):
            principal = authenticator.authenticate(credentials, peer)
            if principal is not None:
                return principal
        raise AuthenticationError("unclaimed", "No authenticator knows this kind of credentials.")

    def named(self, name: str) -> Authenticator | None:
        """The member of this name."""
        return next((member for member in self.members if member.name == name), None)

    def issued_by(self, issuer: str) -> Authenticator | None:
        """The member that is asked about JWTs of this issuer."""
        return self._issuers.get(issuer)

    def claimant(self, credentials: Credentials) -> Authenticator | None:
        """The member that is asked about such credentials. Raises ``AuthenticationError`` where
        they are malformed.
        """
        return next(iter(self._candidates(credentials)), None)

    def close(self) -> None:
        """Let go of threads and connections."""
        for one in self._closing:
            getattr(one, "close", bool)()

    def _file(self, matcher: CredentialMatcher, member: Authenticator) -> None:
        match matcher:
            case IssuedBy(issuer):
                self._issuers[issuer] = member
            case Prefix(text):
                self._prefixes.append((text, member))
            case Scheme(name):
                self._schemes[name.lower()] = member
            case Opaque():
                self._opaque = member
            case BareCertificate():
                self._bare = member

    def _candidates(self, credentials: Credentials) -> list[Authenticator]:
        """Find whom to ask: by prefix, else by the issuer that a JWT names, else by nothing."""
        if credentials.scheme != BEARER:
            found = [self._schemes.get(credentials.scheme)]
        else:
            found = [a for text, a in self._prefixes if credentials.value.startswith(text)]
            token = credentials.jwt if not found else None
            if token is not None:
                issuer = token.claims.get("iss")
                found.append(self._issuers.get(issuer) if isinstance(issuer, str) else None)
            else:
                found.append(self._opaque)
        return [authenticator for authenticator in found if authenticator is not None]


def _check(members: Sequence[Authenticator]) -> None:
    claims = [(member, matcher) for member in members for matcher in member.matchers]
    for member, matcher in claims:
        try:
            matchers.check(matcher)
        except ValueError as error:
            raise AuthenticatorError(f"The authenticator {member.name!r}: {error}") from None
    for one, other in itertools.combinations(members, 2):
        if one.name == other.name:
            raise AuthenticatorError(
                f"Two authenticators are called {one.name!r}: give each a `name` of its own."
            )
    for (one, matcher), (other, theirs) in itertools.combinations(claims, 2):
        if one is not other and matchers.overlap(matcher, theirs):
            raise AuthenticatorError(
                f"The authenticators {one.name!r} and {other.name!r} both claim {matcher}: leave "
                "one of them out, or have them claim different credentials."
            )
