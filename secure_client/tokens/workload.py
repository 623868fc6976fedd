"""Tokens for a workload, which has a client certificate and no password."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from secure_api.tokens.v1 import token_service_pb2
from secure_client._clock import Clock
from secure_client.errors import CallError, TokenRefusedError, TokenUnavailableError
from secure_client.tokens._exchange import FINAL, Asker, exchange, fetched, identity_of
from secure_client.tokens.renewing import Fetched, RenewingToken, RenewingTokens

if TYPE_CHECKING:
    from secure_client._identity import Identity
    from secure_client.connection_settings import ConnectionSettings
    from secure_client.tokens.source import AccessToken, TokenSource


class WorkloadTokenSource:
    """Access tokens by ``IssueToken`` over ``connection``, renewed a minute before they expire.

    ``scopes`` are the scopes to request; empty for all that are granted.
    """

    def __init__(
        self,
        connection: ConnectionSettings,
        scopes: Sequence[str] = (),
        *,
        clock: Clock | None = None,
    ) -> None:
        self._connection = connection
        self._scopes = tuple(scopes)
        self._clock = clock or Clock()
        self._renewing = RenewingToken(
            lambda _: self._fetch(lambda: identity_of(self._connection)), self._clock
        )
        self._bound = RenewingTokens(lambda identity, _: self._fetch(lambda: identity), self._clock)

    def __repr__(self) -> str:
        return f"WorkloadTokenSource({self._connection.target!r}, {self._scopes!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A token source holds a secret and is not pickled.")

    @property
    def target(self) -> str:
        """The only target that these tokens go to."""
        return self._connection.target

    def token(self, *, refused: AccessToken | None = None) -> AccessToken:
        """Raises ``TokenRefusedError`` or ``TokenUnavailableError``."""
        return self._renewing.token(refused)

    def bound_to(self, identity: Identity) -> TokenSource:
        """The same workload for a channel with this certificate."""
        return self._bound.of(identity)

    def _fetch(self, asker: Asker) -> Fetched:
        try:
            tokens = exchange(
                asker,
                "IssueToken",
                lambda: token_service_pb2.IssueTokenRequest(scopes=self._scopes),
            )
        except CallError as error:
            target = self._connection.target
            if error.code in FINAL:
                raise TokenRefusedError(
                    f"{target} issues no token to this client certificate ({error.code.name}): "
                    "its SPIFFE ID must be among the server's workloads, with the scopes asked "
                    "for.",
                    error,
                ) from None
            raise TokenUnavailableError(
                f"{target} issued no token ({error.code.name}); try again later.", error
            ) from None
        return fetched(tokens, self._clock.wall())
