"""``otel_logger``: OpenTelemetry log records, sent to a collector by OTLP over HTTP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

try:
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk._logs.export import LogRecordExportResult
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"It needs the package {error.name}: pip install 'secure-grpc[otel]'", name=error.name
    ) from None

from secure_base.terminal import escape
from secure_server.audit.event import AuditEvent
from secure_server.audit.plugin import AuditLoggerType
from secure_server.audit.record import full_record
from secure_server.fields import File, Section

_EVENT = "grpc_audit_log"
_SCOPE = InstrumentationScope("secure_server.audit")


class OtelSettings(Section):
    """``config`` of ``otel_logger``. OpenTelemetry's own environment variables have the rest, such
    as ``OTEL_EXPORTER_OTLP_HEADERS`` and ``OTEL_SERVICE_NAME``: a policy must not contain secrets.
    """

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$")] | None = None
    """The collector's URL with its path, ``http://localhost:4318/v1/logs``."""
    ca: File | None = None
    """PEM file with the authority of the collector's certificate."""


class OtelLogger:
    """Sends one log record per event, with A59's fields and the true reason as its attributes.

    It does not use OpenTelemetry's own queue, which drops records without counting them.
    """

    def __init__(self, settings: OtelSettings) -> None:
        self._exporter = OTLPLogExporter(
            settings.endpoint,
            certificate_file=None if settings.ca is None else os.fspath(settings.ca),
        )
        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        self._resource = Resource.create({} if named else {SERVICE_NAME: "secure-grpc"})

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Send the events, with retries for ten seconds. Raises ``OSError``."""
        outcome = self._exporter.export([self._record(event) for event in events])
        if outcome is not LogRecordExportResult.SUCCESS:
            raise OSError("the collector did not accept the events")

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _record(self, event: AuditEvent) -> ReadableLogRecord:
        record = LogRecord(
            timestamp=int(event.time * 1e9),
            severity_number=SeverityNumber.INFO if event.allowed else SeverityNumber.WARN,
            severity_text="INFO" if event.allowed else "WARN",
            body="call allowed" if event.allowed else "call refused",
            attributes=_attributes(event),
            event_name=_EVENT,
        )
        return ReadableLogRecord(record, self._resource, _SCOPE)


def _attributes(event: AuditEvent) -> dict[str, str | bool]:
    fields = full_record(event)
    del fields["timestamp"]
    unverified = fields.pop("unverified", {})
    fields |= {f"unverified.{name}": value for name, value in unverified.items()}
    return {
        name: escape(value) if isinstance(value, str) else value for name, value in fields.items()
    }


OTEL = AuditLoggerType(OtelSettings, OtelLogger)
