"""``TokenSource`` and the ``AccessToken`` that it returns."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

import jwt

from secure_client.errors import TokenError

if TYPE_CHECKING:
    from secure_client._identity import Identity

# RFC 6750, section 2.1: b64token. gRPC must get nothing else as metadata.
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")
# The server takes 16 KiB of metadata, of which the token is only a part.
_MAX_LENGTH = 12_288


class AccessToken:
    """One access token. ``expires_at`` is in seconds since the epoch, infinite where unknown.

    A class because the text must not leak: only ``value`` has it, not ``repr`` nor ``vars``, and it
    cannot be pickled.
    """

    __slots__ = ("_value", "expires_at")

    def __init__(self, value: str, expires_at: float = math.inf) -> None:
        """Raises ``TokenError`` for what is no bearer token (RFC 6750, section 2.1)."""
        if len(value) > _MAX_LENGTH or not _B64TOKEN.match(value):
            raise TokenError(
                f"This is no access token: it must be one line of at most {_MAX_LENGTH} letters, "
                "digits and the characters - . _ ~ + / = (RFC 6750)."
            )
        self._value = value
        self.expires_at = expires_at

    @property
    def value(self) -> str:
        """The text that is sent: a secret."""
        return self._value

    def __repr__(self) -> str:
        return f"AccessToken(…, expires_at={self.expires_at})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccessToken) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("An access token is a secret and is not pickled.")

    def claims(self) -> dict[str, Any]:
        """The token's claims, unverified: for timers, never for decisions.

        Empty where it is no JWT.
        """
        try:
            return dict(jwt.decode(self._value, options={"verify_signature": False}))
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return {}


class TokenSource(Protocol):
    """Returns the current access token; called for every call, by many threads at once.

    A source whose tokens are for one target only has an attribute ``target``; ``connect`` refuses
    any other target. Before a channel uses a new certificate the last token counts as
    refused, unless it says that it is bound to no certificate.
    """

    def token(self, *, refused: AccessToken | None = None) -> AccessToken:
        """The token to send now. The server refused ``refused``: return another if possible.

        Raises ``TokenError`` where there is none. The error is never sent anywhere.
        """
        ...


@runtime_checkable
class BindingTokenSource(TokenSource, Protocol):
    """A source whose tokens are bound to the certificate that fetches them (RFC 8705)."""

    def bound_to(self, identity: Identity) -> TokenSource:
        """The same source, which asks as ``identity`` even if the files change."""
        ...
