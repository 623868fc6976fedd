"""Call credentials: a token on every call; the call's error never says why there is none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import grpc

from secure_client.errors import TokenError, TokenUnavailableError
from secure_client.tokens.source import AccessToken

if TYPE_CHECKING:
    from secure_client._identity import Identity
    from secure_client.tokens.source import TokenSource

_logger = logging.getLogger("secure_client")

# All that callers learn of a source's failure: gRPC puts it into `RpcError.details()`.
NO_TOKEN = "no access token could be obtained"  # noqa: S105 - the text of an error


class TokenPlugin(grpc.AuthMetadataPlugin):
    """Sends ``authorization: Bearer …`` (RFC 6750, section 2.1) over a channel with
    ``identity``.

    ``first`` and ``last`` are the tokens sent first and last. ``refused`` is the token that the
    server refused: the source is asked for another. gRPC, threaded or asyncio, calls this on its
    own thread for each call, so a source may block.
    """

    def __init__(
        self, source: TokenSource, identity: Identity, refused: AccessToken | None = None
    ) -> None:
        self._source = source
        self._identity = identity
        self.refused = refused
        self.first: AccessToken | None = None
        self.last: AccessToken | None = None

    def refuse(self, token: AccessToken) -> None:
        """Request a token other than ``token``, unless that was done since."""
        if token == self.last or (self.last is None and self.refused is None):
            self.refused = token

    def token(self) -> AccessToken:
        """The token to send now. Raises what the source raises."""
        token, last = self._source.token(refused=self.refused), self.last
        if not isinstance(token, AccessToken):
            # Only an AccessToken is known to be legal metadata.
            raise TypeError
        if token is last:
            return token
        is_foreign = self._identity.is_foreign
        if last is not None and is_foreign(token) and not is_foreign(last):
            # The source already uses a certificate that this channel does not have.
            return last
        self.first = self.first or token
        self.last = token
        return token

    def prepare(self) -> None:
        """Fetch a token before the first call. Raises ``TokenError`` where there is none."""
        try:
            token = self.token()
        except TokenError:
            raise
        except Exception as error:  # noqa: BLE001 - a foreign source's text may hold its secret
            raise TokenUnavailableError(f"{NO_TOKEN} ({type(error).__name__}).") from None
        if self._identity.is_foreign(token):
            raise TokenUnavailableError(
                "the access token is bound to another certificate: its source must follow."
            )

    def __call__(
        self,
        context: grpc.AuthMetadataContext,  # noqa: ARG002 - a channel has one target
        callback: grpc.AuthMetadataPluginCallback,
    ) -> None:
        try:
            metadata = (("authorization", f"Bearer {self.token().value}"),)
        except Exception as error:  # noqa: BLE001 - gRPC waits for ever if the callback is not called
            # The type only: a foreign source's text may hold its secret.
            _logger.warning("%s: %s", NO_TOKEN, type(error).__name__)
            callback((), RuntimeError(NO_TOKEN))
            return
        callback(metadata, None)
