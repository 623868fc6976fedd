"""The chain of authenticators: the first that knows the credentials decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import AuthenticationError
from secure_server.auth.principal import Principal
from secure_tls.peer import Peer


class Authenticator(Protocol):
    """Recognises callers by one kind of credentials.

    ``authenticate`` returns the principal; None for "none of mine", which lets the next one try; or
    raises ``AuthenticationError``, which is final. It is called from many threads at once.
    """

    @property
    def name(self) -> str: ...

    def authenticate(self, credentials: Credentials, peer: Peer | None) -> Principal | None: ...


class Authenticators:
    """Asks each in turn. Credentials that nobody claims are refused."""

    def __init__(self, chain: Sequence[Authenticator]) -> None:
        self._chain = tuple(chain)

    def authenticate(self, credentials: Credentials, peer: Peer | None) -> Principal:
        """Return the principal, or raise ``AuthenticationError``."""
        for authenticator in self._chain:
            principal = authenticator.authenticate(credentials, peer)
            if principal is not None:
                return principal
        raise AuthenticationError("unclaimed", "No authenticator knows this kind of credentials.")
