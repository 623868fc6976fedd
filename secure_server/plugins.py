"""Everything that your own authenticator needs: docs/authenticators.md shows how.

The protocol has version 1 (``AuthenticatorType.api_version``). Later additions do not break
plug-ins of this version.
"""

from secure_base.reloading import Reloaded, signature
from secure_server.auth.authenticators import Authenticator
from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import (
    AuthenticationError,
    AuthenticatorError,
    AuthenticatorUnavailable,
)
from secure_server.auth.matchers import (
    BareCertificate,
    CredentialMatcher,
    IssuedBy,
    Opaque,
    Prefix,
    Scheme,
)
from secure_server.auth.plugin import AuthenticatorContext, AuthenticatorType
from secure_server.auth.principal import Principal
from secure_server.fields import File
from secure_server.fields import Section as Settings
from secure_tls.peer import Peer

__all__ = [
    "AuthenticationError",
    "Authenticator",
    "AuthenticatorContext",
    "AuthenticatorError",
    "AuthenticatorType",
    "AuthenticatorUnavailable",
    "BareCertificate",
    "CredentialMatcher",
    "Credentials",
    "File",
    "IssuedBy",
    "Opaque",
    "Peer",
    "Prefix",
    "Principal",
    "Reloaded",
    "Scheme",
    "Settings",
    "signature",
]
