"""The chain of authenticators: which one is asked about which credentials."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
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
    ``authenticate`` returns the principal; None for "not mine", which lets the next one try; or
    raises ``AuthenticationError``, which is final. It is called from many threads at once. The
    guard caches the principal until ``Principal.expires_at`` or ``recheck_at``. ``credentials`` is
    None for a call with a client certificate and no credential.

    It may also have ``check() -> str``, which fetches its keys and describes in a sentence what it
    accepts, for `secure-server check`; ``close()``; and the members of ``VerifiesTokens``,
    ``LimitsLifetime`` or ``EndedElsewhere``, which revocation uses.
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
    """An authenticator that can verify a bearer token without the call that carries it."""

    def verify(self, text: str) -> Principal:
        """Return the principal of a token without checking its certificate. Never for admission.

        Raises ``AuthenticationError``.
        """
        ...


@runtime_checkable
class LimitsLifetime(Authenticator, Protocol):
    """An authenticator that refuses tokens with too long a lifetime."""

    @property
    def token_lifetime(self) -> float:
        """Seconds; the longest lifetime that any of its configurations can accept."""
        ...


@runtime_checkable
class EndedElsewhere(Authenticator, Protocol):
    """An authenticator whose credentials are not tokens, so that they have no ID to revoke."""

    ended_by: str
    """A sentence for callers: how to end such a credential."""


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> None: ...


def close_all(parts: Iterable[object]) -> None:
    """Close those of the parts that have a ``close()``."""
    for part in parts:
        if isinstance(part, _Closable):
            part.close()


class Authenticators:
    """Asks the authenticators whose matchers fit; refuses credentials that fit none of them."""

    def __init__(
        self,
        chain: Sequence[Authenticator],
        cache_epoch: CacheEpoch | None = None,
        reloads: Reloads | None = None,
        closing: Sequence[object] = (),
    ) -> None:
        """Raises ``AuthenticatorError`` for two that claim the same credentials or share a name.

        ``cache_epoch`` is advanced by the members of the chain when cached answers become invalid;
        ``closing`` is closed with the members.
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
        """Whether some authenticator recognises callers by their client certificate alone."""
        return self._bare is not None

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal:
        """Return the principal. Raises ``AuthenticationError``.

        It is ``ANONYMOUS`` without credentials and without an authenticator that recognises the
        certificate.
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
        """Return the member of this name."""
        return next((member for member in self.members if member.name == name), None)

    def issued_by(self, issuer: str) -> Authenticator | None:
        """Return the member that is asked about JWTs of this issuer."""
        return self._issuers.get(issuer)

    def claimant(self, credentials: Credentials) -> Authenticator | None:
        """Return the member that is asked about such credentials.

        Raises ``AuthenticationError`` where they are malformed.
        """
        return next(iter(self._candidates(credentials)), None)

    def close(self) -> None:
        """Close the members: their threads and connections."""
        close_all(self._closing)

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
        """Find the member for a bearer token: by prefix, by a JWT's issuer, or by ``Opaque``."""
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
