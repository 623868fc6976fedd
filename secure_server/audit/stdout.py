"""``stdout_logger``, the only logger that gRFC A59 itself defines."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from secure_server.audit.event import AuditEvent
from secure_server.audit.plugin import AuditLoggerType
from secure_server.audit.record import a59_record, lines
from secure_server.logs import write_lines

_STDOUT = 1


class StdoutSettings(BaseModel):
    """There are no settings; unknown ones are ignored, as in grpc-go and C++."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class StdoutLogger:
    """Writes A59's line to standard output.

    It writes to the descriptor, not to ``sys.stdout``, whose lock another thread may hold: Python
    aborts the process where a thread holds that lock when the process ends.
    """

    def write(self, events: Sequence[AuditEvent]) -> None:
        write_lines(_STDOUT, lines(map(a59_record, events)))

    def close(self) -> None:
        pass


STDOUT = AuditLoggerType(StdoutSettings, lambda _settings: StdoutLogger())
