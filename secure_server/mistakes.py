"""The errors that an operator can mend: their texts say what is wrong and what to do."""

from __future__ import annotations

import sys

_MISTAKES = (
    ("secure_server.guard.listener.sockets", "ListenError"),
    ("secure_server.audit.errors", "AuditLoggerError"),
    ("secure_server.auth.errors", "AuthenticatorError"),
    ("secure_server.authz.errors", "PolicyError"),
    ("secure_server.config", "ConfigError"),
    ("secure_server.store.errors", "StoreError"),
    ("secure_server.tokens.signing_key", "SigningKeyError"),
    ("secure_server.users.errors", "UserError"),
    ("secure_tls.errors", "TLSError"),
)


def mistakes() -> tuple[type[Exception], ...]:
    """Return the types of these errors, of the modules that are loaded.

    No other module can have raised one, and to load the store's for an ``except`` would need the
    extra [server].
    """
    return tuple(
        getattr(sys.modules[module], name) for module, name in _MISTAKES if module in sys.modules
    )
