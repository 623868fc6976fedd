"""A gRPC server behind mutual TLS, tokens and policy.

>>> import secure_server
>>> guard = secure_server.Guard.from_config("secure-server.toml")  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secure_server.auth.authenticators import Authenticator, Authenticators
    from secure_server.auth.credentials import Credentials
    from secure_server.auth.errors import (
        AuthenticationError,
        AuthenticatorError,
        AuthenticatorUnavailable,
    )
    from secure_server.auth.principal import ANONYMOUS, Principal
    from secure_server.authz import Policy, PolicyError
    from secure_server.config import ConfigError
    from secure_server.guard.caller import Caller, current_caller, current_principal
    from secure_server.guard.guard import Guard
    from secure_server.guard.refusal_log import AuditCallback, AuditEvent
    from secure_server.guard.tls_set import TLSSet
    from secure_server.limits import Limits
    from secure_tls.peer import Peer

__all__ = [
    "ANONYMOUS",
    "AuditCallback",
    "AuditEvent",
    "AuthenticationError",
    "Authenticator",
    "AuthenticatorError",
    "AuthenticatorUnavailable",
    "Authenticators",
    "Caller",
    "ConfigError",
    "Credentials",
    "Guard",
    "Limits",
    "Peer",
    "Policy",
    "PolicyError",
    "Principal",
    "TLSSet",
    "current_caller",
    "current_principal",
]

_HOMES = {
    "ANONYMOUS": "secure_server.auth",
    "AuditEvent": "secure_server.guard",
    "AuditCallback": "secure_server.guard",
    "AuthenticationError": "secure_server.auth",
    "Authenticator": "secure_server.auth",
    "AuthenticatorError": "secure_server.auth.errors",
    "Authenticators": "secure_server.auth",
    "AuthenticatorUnavailable": "secure_server.auth",
    "Caller": "secure_server.guard",
    "ConfigError": "secure_server.config",
    "Credentials": "secure_server.auth",
    "Guard": "secure_server.guard",
    "Limits": "secure_server.limits",
    "Peer": "secure_tls.peer",
    "Policy": "secure_server.authz",
    "PolicyError": "secure_server.authz",
    "Principal": "secure_server.auth",
    "TLSSet": "secure_server.guard",
    "current_caller": "secure_server.guard",
    "current_principal": "secure_server.guard",
}


def __getattr__(name: str) -> object:
    """Import on first use: the rooms below that know no gRPC must not load it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value
