"""The caller of the running call, for the handler."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from secure_server.auth.principal import Principal
from secure_tls.peer import Peer


@dataclass(frozen=True, slots=True)
class Caller:
    """Peer and principal of a call. ``peer`` is None without a client certificate."""

    peer: Peer | None
    principal: Principal


CALLER: ContextVar[Caller] = ContextVar("secure_server_caller")
"""Set by the adapters, in the context of one call, after the decision and before the handler."""


def current_caller() -> Caller:
    """Return peer and principal of the running call.

    Raises ``LookupError`` where no guarded call is running: outside a handler, or on a thread that
    the handler started itself.
    """
    try:
        return CALLER.get()
    except LookupError:
        raise LookupError(
            "No guarded call is running here. Ask inside the handler, and pass the answer to the "
            "threads that it starts."
        ) from None


def current_principal() -> Principal:
    """Return who is calling, as the guard recognised them; see ``current_caller``."""
    return current_caller().principal
