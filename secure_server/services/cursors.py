"""Page and resume tokens: opaque to callers, and valid only for the caller who got them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from secure_server.auth.identity import Identity
from secure_server.services.failures import InvalidRequestError

_TAG_BYTES = 16


class Cursors:
    """Authenticates a position for one purpose and one caller, so that no caller can forge one
    (AIP-158).
    """

    def __init__(self, key: bytes) -> None:
        """``key`` is the installation's: all of its processes must have the same."""
        self._key = key

    def seal(self, field: str, caller: Identity, position: str, *, parent: str = "") -> str:
        """Return a token for a position. ``field`` is the request field that it will come back
        in; ``parent`` is the resource whose children are listed, where a method lists those of
        several.
        """
        data = position.encode()
        tag = self._tag(field, caller, parent, data)
        return base64.urlsafe_b64encode(tag + data).decode()

    def open(self, field: str, caller: Identity, token: str, *, parent: str = "") -> str:
        """Return the position. Raises ``InvalidRequestError`` for a token that ``seal`` did not
        make for the same field, caller and parent.
        """
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
        # Each part has its length in front, so different parts never give the same message.
        texts = (field, caller.issuer, caller.subject, parent)
        parts = (*(text.encode() for text in texts), data)
        message = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(self._key, message, hashlib.sha256)[:_TAG_BYTES]
