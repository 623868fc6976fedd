"""The client: a channel with certificates, tokens and deadlines, and token sources."""

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secure_client import aio
    from secure_client.channel import connect
    from secure_client.connection_settings import ConnectionSettings, find_connection
    from secure_client.errors import (
        CallError,
        ClientError,
        ConfigurationError,
        NotLoggedInError,
        ProfileError,
        SessionEndedError,
        TokenError,
        TokenRefusedError,
        TokenUnavailableError,
    )
    from secure_client.tokens.file import FileTokenSource
    from secure_client.tokens.session import SessionTokenSource
    from secure_client.tokens.source import AccessToken, TokenSource
    from secure_client.tokens.workload import WorkloadTokenSource
    from secure_client.users import watch_users

__all__ = [
    "AccessToken",
    "CallError",
    "ClientError",
    "ConfigurationError",
    "ConnectionSettings",
    "FileTokenSource",
    "NotLoggedInError",
    "ProfileError",
    "SessionEndedError",
    "SessionTokenSource",
    "TokenError",
    "TokenRefusedError",
    "TokenSource",
    "TokenUnavailableError",
    "WorkloadTokenSource",
    "aio",
    "connect",
    "find_connection",
    "watch_users",
]

_HOMES = {
    "aio": "aio",
    "connect": "channel",
    "ConnectionSettings": "connection_settings",
    "find_connection": "connection_settings",
    "FileTokenSource": "tokens.file",
    "SessionTokenSource": "tokens.session",
    "AccessToken": "tokens.source",
    "TokenSource": "tokens.source",
    "WorkloadTokenSource": "tokens.workload",
    "watch_users": "users",
}


def __getattr__(name: str) -> object:
    """Import on first use: the command line sets up gRPC's own logging before gRPC is loaded."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
    value = globals()[name] = home if name == "aio" else getattr(home, name)
    return value


# The application decides whether and where warnings appear.
logging.getLogger("secure_client").addHandler(logging.NullHandler())
