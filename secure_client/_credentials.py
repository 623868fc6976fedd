"""Call credentials: a token on every call, and never a word about why there is none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import grpc

from secure_client.tokens.source import AccessToken

if TYPE_CHECKING:
    from secure_client.tokens.source import TokenSource

_logger = logging.getLogger("secure_client")

# All that a caller sees of a source's failure: gRPC puts it into `RpcError.details()`.
NO_TOKEN = "no access token could be obtained"  # noqa: S105 - the text of an error


class TokenPlugin(grpc.AuthMetadataPlugin):
    """Sends ``authorization: Bearer …`` (RFC 6750, section 2.1).

    ``first`` and ``last`` are the tokens sent first and last. A token in ``refused`` is one that
    the server does not take: the source is asked for another. Both stacks of gRPC run this in a
    thread of its own per call, so a source may block.
    """

    def __init__(self, source: TokenSource, refused: AccessToken | None = None) -> None:
        self._source = source
        self.refused = refused
        self.first: AccessToken | None = None
        self.last: AccessToken | None = None

    def refuse(self, token: AccessToken) -> None:
        """Ask for another than ``token``, unless another has been sent or asked for since."""
        if token == self.last or (self.last is None and self.refused is None):
            self.refused = token

    def __call__(
        self,
        context: grpc.AuthMetadataContext,  # noqa: ARG002 - a channel has one target
        callback: grpc.AuthMetadataPluginCallback,
    ) -> None:
        try:
            token = self._source.token(refused=self.refused)
            if not isinstance(token, AccessToken):
                # Only that one is known to be legal as metadata.
                raise TypeError  # noqa: TRY301 - it ends as every failure of a source does
            metadata = (("authorization", f"Bearer {token.value}"),)
        except Exception as error:  # noqa: BLE001 - whoever does not call back hangs the call
            # The type alone: a foreign source's text may hold its secret.
            _logger.warning("%s: %s", NO_TOKEN, type(error).__name__)
            callback((), RuntimeError(NO_TOKEN))
            return
        self.first = self.first or token
        self.last = token
        callback(metadata, None)
