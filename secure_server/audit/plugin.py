"""How an audit logger is found, configured and built: the protocol for plug-ins, version 1.

A package announces its loggers as entry points in the group ``secure_server.audit_loggers``; the
entry point's name is the ``name`` in a policy's ``audit_loggers``, and what it leads to is an
``AuditLoggerType``. Those of this project are announced in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from secure_server.audit.errors import AuditLoggerError
from secure_server.audit.event import AuditEvent

API_VERSION = 1
GROUP = "secure_server.audit_loggers"

S = TypeVar("S", bound=BaseModel)


class AuditSink(Protocol):
    """Where audit events go.

    Both methods are called on the logger's own thread: they may block, and no call waits for them.
    Meanwhile events wait in a bounded queue, and are dropped when it is full.
    """

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Write events, the oldest first, a few hundred at the most.

        Where it raises any exception, these events count as dropped, the log has the reason, and
        later events are written as usual. Callers choose the names in events: escape them for the
        format that you write.
        """

    def close(self) -> None:
        """Close what was opened; ``write`` is not called afterwards."""


@dataclass(frozen=True, slots=True)
class AuditLoggerType(Generic[S]):
    """One ``name`` of ``audit_loggers``.

    ``settings`` is the model of the logger's ``config``, a ``secure_server.audit.Settings``:
    relative paths (``secure_server.audit.File``) count from the folder of the policy, and mistakes
    are reported with their line. ``build`` returns the sink; it may raise ``AuditLoggerError``, and
    should not wait for the network. ``look``, for `secure-server check`, raises the
    ``AuditLoggerError`` that ``build`` would and opens nothing; without it a mistake that only
    ``build`` finds is found by the start.
    """

    settings: type[S]
    build: Callable[[S], AuditSink]
    look: Callable[[S], object] | None = None
    # Not API_VERSION: a plug-in that names no version was written for version 1.
    api_version: int = 1


def announced() -> frozenset[str]:
    """Return the names of the loggers that are installed."""
    return frozenset(entry_points(group=GROUP).names)


def find_type(name: str) -> AuditLoggerType[Any]:
    """Return the type of an installed logger. Raises ``AuditLoggerError``."""
    found = {point.value: point for point in entry_points(group=GROUP, name=name)}
    places = " and ".join(sorted(found))
    if not found:
        raise AuditLoggerError("No such logger is installed.")
    if len(found) > 1:
        raise AuditLoggerError(f"{places} both provide it. Uninstall one of them.")
    (point,) = found.values()
    try:
        kind = point.load()
    except ModuleNotFoundError as error:
        raise AuditLoggerError(f"{str(error).rstrip('.')}.") from error
    except Exception as error:  # importing a plug-in's module may raise anything
        raise AuditLoggerError(f"{places} raises {type(error).__name__}: {error}") from error
    if not isinstance(kind, AuditLoggerType):
        raise AuditLoggerError(f"{places} is no AuditLoggerType.")
    if kind.api_version != API_VERSION:
        raise AuditLoggerError(
            f"{places} was written for version {kind.api_version} of the plug-in protocol, and "
            f"this is version {API_VERSION}."
        )
    return kind
