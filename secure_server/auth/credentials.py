"""The credentials of a call: its ``authorization`` value."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from secure_server.auth import jws
from secure_server.auth.errors import AuthenticationError

BEARER = "bearer"


@dataclass(frozen=True)
class Credentials:
    """One ``authorization`` value, parsed (RFC 9110, section 11.4).

    ``scheme`` is lower case. The value is left out of the ``repr``.
    """

    scheme: str
    value: str = field(repr=False)

    @classmethod
    def parse(cls, authorization: str) -> Credentials:
        """Split ``authorization`` at its one space.

        Raises ``AuthenticationError`` with code ``authorization`` for a value without exactly one
        space, and for anything but printable ASCII, which gRPC metadata cannot hold as text.
        """
        scheme, space, value = authorization.partition(" ")
        if not (scheme and space and value) or " " in value:
            raise AuthenticationError(
                "authorization", "The authorization value is not a scheme, one space, a credential."
            )
        if not (authorization.isascii() and authorization.isprintable()):
            raise AuthenticationError(
                "authorization", "The authorization value is not printable ASCII."
            )
        return cls(scheme.lower(), value)

    @cached_property
    def jwt(self) -> jws.UnverifiedToken | None:
        """The bearer token, read and *not* verified, where it has the form of a JWT; else None.

        Parsed once and cached. Raises ``AuthenticationError``, as ``jws.parse`` does.
        """
        return jws.parse(self.value) if self.scheme == BEARER else None
