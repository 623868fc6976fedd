"""What a call brings along to say who is calling."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from secure_server.auth import jws
from secure_server.auth.errors import AuthenticationError

BEARER = "bearer"


@dataclass(frozen=True)
class Credentials:
    """One ``authorization`` value, taken apart (RFC 9110, section 11.4).

    ``scheme`` is lower case. The value itself never shows in a ``repr``.
    """

    scheme: str
    value: str = field(repr=False)

    @classmethod
    def parse(cls, authorization: str) -> Credentials:
        """Take ``authorization`` apart at its one space.

        Raises ``AuthenticationError`` with code ``authorization`` where there is not exactly one,
        and for what gRPC does not have in a text: anything but printable ASCII.
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

        Read once, however many ask. Raises ``AuthenticationError``, as ``jws.parse`` does.
        """
        return jws.parse(self.value) if self.scheme == BEARER else None
