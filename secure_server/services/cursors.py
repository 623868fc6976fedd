"""Page and resume tokens: opaque to callers, and good only where they were given."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from secure_server.auth.identity import Identity
from secure_server.services.failures import InvalidRequestError

_TAG_BYTES = 16


class Cursors:
    """Seals a position for one purpose and one caller, so that nobody makes one up (AIP-158)."""

    def __init__(self, key: bytes) -> None:
        """Take the installation's key; all its processes need the same."""
        self._key = key

    def seal(self, field: str, caller: Identity, position: str, *, parent: str = "") -> str:
        """Return the token that stands for a position. ``field`` is where it will come back,
        ``parent`` names what is listed, where there are several.
        """
        data = position.encode()
        tag = self._tag(field, caller, parent, data)
        return base64.urlsafe_b64encode(tag + data).decode()

    def open(self, field: str, caller: Identity, token: str, *, parent: str = "") -> str:
        """Return the position. Raises ``InvalidRequestError`` where this was not sealed so."""
        try:
            sealed = base64.b64decode(token.encode(), b"-_", validate=True)
        except (ValueError, binascii.Error):
            sealed = b""
        tag, data = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(field, caller, parent, data)):
            raise InvalidRequestError(
                field, f"`{field}` is not one that this server gave to this caller. Leave it empty."
            )
        return data.decode()

    def _tag(self, field: str, caller: Identity, parent: str, data: bytes) -> bytes:
        # Lengths in front: no two of these are the same bytes.
        texts = (field, caller.issuer, caller.subject, parent)
        parts = (*(text.encode() for text in texts), data)
        message = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(self._key, message, hashlib.sha256)[:_TAG_BYTES]
