"""Call credentials: a token on every call, and never a word about why there is none."""

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

# All that a caller sees of a source's failure: gRPC puts it into `RpcError.details()`.
NO_TOKEN = "no access token could be obtained"  # noqa: S105 - the text of an error


class TokenPlugin(grpc.AuthMetadataPlugin):
    """Sends ``authorization: Bearer …`` (RFC 6750, section 2.1) over a line with ``identity``.

    ``first`` and ``last`` are the tokens sent first and last. A token in ``refused`` is one that
    the server does not take: the source is asked for another. Both stacks of gRPC run this in a
    thread of its own per call, so a source may block.
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
        """Ask for another than ``token``, unless another has been sent or asked for since."""
        if token == self.last or (self.last is None and self.refused is None):
            self.refused = token

    def token(self) -> AccessToken:
        """The token to send now. Raises what the source raises."""
        token, last = self._source.token(refused=self.refused), self.last
        if not isinstance(token, AccessToken):
            # Only that one is known to be legal as metadata.
            raise TypeError
        if token is last:
            return token
        is_foreign = self._identity.is_foreign
        if last is not None and is_foreign(token) and not is_foreign(last):
            # The source has gone on to a certificate that this line does not have.
            return last
        self.first = self.first or token
        self.last = token
        return token

    def prepare(self) -> None:
        """Have a token before the first call. Raises ``TokenError`` where there is none."""
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
        except Exception as error:  # noqa: BLE001 - whoever does not call back hangs the call
            # The type alone: a foreign source's text may hold its secret.
            _logger.warning("%s: %s", NO_TOKEN, type(error).__name__)
            callback((), RuntimeError(NO_TOKEN))
            return
        callback(metadata, None)
