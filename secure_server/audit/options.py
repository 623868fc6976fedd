"""Finding and configuring the audit loggers of a policy, before any of them opens a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from secure_server import logs
from secure_server.audit.errors import AuditLoggerError
from secure_server.audit.plugin import AuditLoggerType, AuditSink, find_type
from secure_server.authz.document import Node, quoted, read
from secure_server.authz.errors import PolicyError
from secure_server.fields import relative_to


@dataclass(frozen=True, slots=True)
class ConfiguredLogger:
    """One of ``audit_loggers`` of a policy, ready to be built."""

    name: str
    kind: AuditLoggerType[Any]
    settings: BaseModel

    def build(self) -> AuditSink:
        """Build the logger. Raises ``AuditLoggerError``, which names it."""
        with self._named():
            return self.kind.build(self.settings)

    def look(self) -> None:
        """Raise the ``AuditLoggerError`` that ``build`` would, and open nothing."""
        with self._named():
            if self.kind.look is not None:
                self.kind.look(self.settings)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except AuditLoggerError as error:
            raise AuditLoggerError(f"The audit logger {self.name}: {error}") from None


def configured_loggers(
    text: str, *, origin: str, folder: Path = Path()
) -> tuple[ConfiguredLogger, ...]:
    """Return the loggers of a policy that was parsed with the ``announced`` loggers as known.

    Relative paths in it count from ``folder``. An optional logger that is not installed is left
    out with a warning in the log; a wrong ``config`` is an error for it too, as in grpc-go. Raises
    ``PolicyError``.
    """
    options = read(text, origin=origin).any_members().get("audit_logging_options")
    items = options.any_members().get("audit_loggers") if options is not None else None
    found = (_configured(item, folder) for item in (items.items() if items is not None else ()))
    return tuple(logger for logger in found if logger is not None)


def _configured(item: Node, folder: Path) -> ConfiguredLogger | None:
    members = item.any_members()
    name = members["name"].string()
    try:
        kind = find_type(name)
    except AuditLoggerError as error:
        if "is_optional" in members and members["is_optional"].boolean():
            log = logs.logger("secure_server.audit")
            log.warning("an optional audit logger is left out", name=name, reason=str(error))
            return None
        what = f"Audit logger {quoted(name)} cannot be used"
        raise members["name"].error(what, str(error)) from None
    config = members.get("config", item)
    try:
        with relative_to(folder):
            settings = kind.settings.model_validate(config.value if "config" in members else {})
    except ValidationError as error:
        raise _mistake(config, kind, error) from None
    return ConfiguredLogger(name, kind, settings)


def _mistake(config: Node, kind: AuditLoggerType[Any], error: ValidationError) -> PolicyError:
    """Return an error with the place of the first mistake in the policy."""
    problem = error.errors(include_input=False, include_url=False)[0]
    *owners, last = problem["loc"] or ("config",)
    for step in owners:
        config = config.any_members()[str(step)]
    if problem["type"] == "missing":
        return config.error(f"{quoted(str(last))} is missing", "The logger needs it.")
    if problem["type"] == "extra_forbidden" and not owners:
        try:
            config.members(*kind.settings.model_fields)
        except PolicyError as unknown:
            return unknown
    message = str(problem["msg"]).removeprefix("Value error, ")
    at_fault = config.any_members().get(str(last), config)
    return at_fault.error(f"{quoted(str(last))} is wrong", f"{message}.")
