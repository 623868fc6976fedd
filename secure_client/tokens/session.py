"""Tokens of a session that ``secure-client login`` has opened."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

from secure_api.tokens.v1 import token_service_pb2
from secure_client._clock import Clock
from secure_client.connection_settings import ConnectionSettings, find_connection
from secure_client.errors import (
    CallError,
    ClientError,
    NotLoggedInError,
    SessionEndedError,
    TokenError,
    TokenUnavailableError,
)
from secure_client.profile import Profile
from secure_client.session import Session, session_of
from secure_client.tokens._exchange import (
    FINAL,
    Asker,
    exchange,
    fetched,
    identity_of,
    is_bound_elsewhere,
    lifetime,
)
from secure_client.tokens.renewing import Fetched, RenewingToken, RenewingTokens
from secure_client.tokens.source import AccessToken

if TYPE_CHECKING:
    from secure_client._identity import Identity
    from secure_client.session import SessionFile
    from secure_client.tokens.source import TokenSource

# Seconds. A token from the file with less than this left is renewed at once.
_WORTH_USING = 30.0


class SessionTokenSource:
    """Access tokens of the session in a profile, renewed by its refresh token.

    A refresh token works once: sent again, it ends the session (RFC 9700, section 4.14), except
    that the server repeats the last answer for a short while in case it was lost. So one process
    of this profile at a time refreshes, under a lock, and those that waited use its result; the
    next refresh token is on disk before the access token is used.

    ``profile`` is the name of a profile, None for the current one. ``connection`` is where to
    refresh; by default the profile's.
    """

    def __init__(
        self,
        profile: str | None = None,
        *,
        connection: ConnectionSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Raises ``ProfileError`` and ``ConfigurationError``."""
        found = Profile.named(profile)
        self.connection = connection or find_connection(profile=found)
        self._file: SessionFile = found.session
        self._clock = clock or Clock()
        self._renewing = RenewingToken(
            partial(self._fetch, lambda: identity_of(self.connection)), self._clock
        )
        self._bound = RenewingTokens(
            lambda identity, refused: self._fetch(lambda: identity, refused), self._clock
        )

    def __repr__(self) -> str:
        return f"SessionTokenSource({self._file.profile!r}, target={self.target!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A token source holds a secret and is not pickled.")

    @property
    def target(self) -> str:
        """The only target that these tokens go to."""
        return self.connection.target

    def token(self, *, refused: AccessToken | None = None) -> AccessToken:
        """The session's access token.

        Raises ``NotLoggedInError``, ``SessionEndedError`` or ``TokenUnavailableError``.
        """
        return self._renewing.token(refused)

    def bound_to(self, identity: Identity) -> TokenSource:
        """The same session for a channel with this certificate of the user's."""
        return self._bound.of(identity)

    def _fetch(self, asker: Asker, refused: AccessToken | None) -> Fetched:
        try:
            session = self._load()
            if (found := self._good(session, asker, refused)) is not None:
                return found
            with self._file.lock():
                # Another process may have refreshed while this one waited.
                session = self._load()
                return self._good(session, asker, refused) or self._refresh(session, asker)
        except TokenError:
            raise
        except ClientError as error:
            raise TokenUnavailableError(str(error)) from None

    def _load(self) -> Session:
        session = self._file.load()
        if session is None or session.target != self.target:
            raise NotLoggedInError(
                f"Profile {self._file.profile!r} has no session at {self.target}: run "
                "secure-client login USER."
            )
        return session

    def _good(self, session: Session, asker: Asker, refused: AccessToken | None) -> Fetched | None:
        token = session.token
        left = token.expires_at - self._clock.wall()
        # A slow clock must not extend its lifetime.
        left = min(left, lifetime(token, left))
        if token == refused or left < _WORTH_USING or is_bound_elsewhere(token, asker):
            return None
        return Fetched(token, left)

    def _refresh(self, session: Session, asker: Asker) -> Fetched:
        try:
            tokens = exchange(
                asker,
                "Refresh",
                lambda: token_service_pb2.RefreshRequest(refresh_token=session.refresh_token),
            )
        except CallError as error:
            if error.code in FINAL:
                raise SessionEndedError(
                    f"The session of {session.user} at {self.target} has ended: run "
                    f"secure-client login {session.user}.",
                    error,
                ) from None
            raise TokenUnavailableError(
                f"{self.target} did not renew the session ({error.code.name}); try again later.",
                error,
            ) from None
        self._file.save(session_of(tokens, session.user, self.target))
        return fetched(tokens, self._clock.wall())
