"""The parameters of ``connect``, for both of gRPC's stacks: threads and asyncio."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from secure_client._credentials import TokenPlugin
from secure_client._identity import Identity
from secure_client._service_config import IdempotentMethods, service_config
from secure_client.errors import ConfigurationError
from secure_client.tokens.source import BindingTokenSource
from secure_tls import read_client_files

if TYPE_CHECKING:
    from secure_client._rotation import CountedChannel
    from secure_client.tokens.source import AccessToken, TokenSource

# Servers count a ping within five minutes of the last as abuse unless told otherwise (gRFC A8);
# load balancers forget an idle connection after as little as 350 seconds.
_KEEPALIVE_MS = 310_000
_KEEPALIVE_TIMEOUT_MS = 20_000
# gRPC's default of two minutes is too long after an outage has ended.
_RECONNECT_MS = 30_000
# Equal limits: between the soft and the hard one gRPC rejects at random.
_MAX_METADATA_BYTES = 16_384

_PLAIN_SCHEME = re.compile(r"(https?|grpcs?|wss?)://", re.IGNORECASE)


class Endpoint:
    """The parameters of ``connect``, checked; the files are read by ``read``.

    Raises ``ConfigurationError``.
    """

    def __init__(
        self,
        target: str,
        *,
        ca: str | os.PathLike[str],
        certificate: str | os.PathLike[str] | None = None,
        private_key: str | os.PathLike[str] | None = None,
        tokens: TokenSource | None = None,
        server_name: str | None = None,
        timeout: float = 30.0,
        idempotent_methods: IdempotentMethods = (),
    ) -> None:
        _check(target, ca, timeout, tokens)
        self.target = target
        self.certificate = certificate
        self.timeout = timeout
        self.paths = tuple(path for path in (ca, certificate, private_key) if path is not None)
        self.options: list[tuple[str, Any]] = [
            ("grpc.service_config", service_config(idempotent_methods)),
            # The client decides what is retried, not the DNS server.
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
            ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
            # gRPC must not share connections between channels: their certificates differ.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if server_name:
            self.options.append(("grpc.ssl_target_name_override", server_name))
        self._ca, self._private_key = ca, private_key
        self._tokens = tokens

    def read(self) -> Identity:
        """The files as they are now.

        Raises ``secure_tls.TLSFileError`` for a file that gRPC must not get.
        """
        files = read_client_files(self.certificate, self._private_key, self._ca)
        return Identity(self.target, tuple(self.options), files)

    def plugin(self, identity: Identity, before: CountedChannel | None) -> TokenPlugin | None:
        """The source of tokens for a channel with this identity that replaces ``before``."""
        if self._tokens is None:
            return None
        if isinstance(self._tokens, BindingTokenSource):
            return TokenPlugin(self._tokens.bound_to(identity), identity)
        return TokenPlugin(self._tokens, identity, _outdated(identity, before))


def _outdated(identity: Identity, before: CountedChannel | None) -> AccessToken | None:
    """The token of the channel before, unless it is as good with this identity."""
    token = before.token() if before is not None else None
    if before is None or token is None or before.identity.thumbprint() == identity.thumbprint():
        return None
    # An opaque token may be bound to a certificate without saying so.
    return token if not token.claims() or identity.is_foreign(token) else None


def _check(
    target: str,
    ca: str | os.PathLike[str] | None,
    timeout: float,
    tokens: TokenSource | None,
) -> None:
    if not target or not target.isprintable() or " " in target:
        raise ConfigurationError(f"{target!a} is no target: write host:port.")
    if _PLAIN_SCHEME.match(target):
        raise ConfigurationError(
            f"{target!a} is a URL: write host:port. Every channel here speaks TLS."
        )
    if ca is None or not os.fspath(ca):
        raise ConfigurationError(
            "There is no CA to verify the server by, and no channel without TLS: tokens would "
            "travel in the clear. Give the PEM file of the server's CA."
        )
    if not timeout > 0:
        raise ConfigurationError(f"A deadline of {timeout} seconds has passed before it begins.")
    bound = getattr(tokens, "target", None)
    if bound is not None and bound != target:
        raise ConfigurationError(
            f"These tokens are meant for {bound!a} and do not go to {target!a}: use a token source "
            "of that target."
        )
