"""Who is calling: credentials and peer in, a principal out. Imports no gRPC."""

from secure_server.auth.authenticators import Authenticator, Authenticators
from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import AuthenticationError, AuthenticatorUnavailable
from secure_server.auth.identity import Identity
from secure_server.auth.principal import ANONYMOUS, Principal
from secure_server.auth.revocations import NothingRevoked, Revocations

__all__ = [
    "ANONYMOUS",
    "AuthenticationError",
    "Authenticator",
    "AuthenticatorUnavailable",
    "Authenticators",
    "Credentials",
    "Identity",
    "NothingRevoked",
    "Principal",
    "Revocations",
]
