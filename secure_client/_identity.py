"""The certificate, key and CA of one gRPC channel."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from secure_tls import PeerError, parse_peer

if TYPE_CHECKING:
    from secure_client.tokens.source import AccessToken
    from secure_tls import ClientTLSFiles


@dataclass(frozen=True, slots=True)
class Identity:
    """One set of files, as read once: later changes of the files do not affect it."""

    target: str
    options: tuple[tuple[str, Any], ...] = field(repr=False)
    files: ClientTLSFiles = field(repr=False)

    def credentials(self) -> grpc.ChannelCredentials:
        files = self.files
        return grpc.ssl_channel_credentials(
            files.ca_bundle, files.private_key, files.certificate_chain
        )

    def open(self) -> grpc.Channel:
        """Open a channel without tokens, to fetch some; close it."""
        return grpc.secure_channel(self.target, self.credentials(), self.options)

    def thumbprint(self) -> str | None:
        """``x5t#S256`` of the certificate (RFC 8705, section 3.1), None without one."""
        if self.files.leaf is None:
            return None
        digest = self.files.leaf.fingerprint(hashes.SHA256())
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def spiffe_id(self) -> str | None:
        """The certificate's one SPIFFE ID, None where there is none."""
        if self.files.leaf is None:
            return None
        try:
            return parse_peer(self.files.leaf.public_bytes(Encoding.PEM)).spiffe_id
        except PeerError:
            # The server decides whether it accepts such a certificate.
            return None

    def has_expired(self, now: float) -> bool:
        """Whether the certificate has expired at ``now``, seconds since the epoch."""
        leaf = self.files.leaf
        return leaf is not None and now > leaf.not_valid_after_utc.timestamp()

    def is_foreign(self, token: AccessToken) -> bool:
        """Whether the token says that it is bound to another certificate (RFC 8705, 3.1)."""
        confirmation = token.claims().get("cnf")
        if not isinstance(confirmation, dict) or "x5t#S256" not in confirmation:
            return False
        return bool(confirmation["x5t#S256"] != self.thumbprint())
