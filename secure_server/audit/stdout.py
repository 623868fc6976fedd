"""``stdout_logger``, the one logger that gRFC A59 itself defines."""

from __future__ import annotations

import select
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from secure_server.audit.event import AuditEvent
from secure_server.audit.plugin import AuditLoggerType
from secure_server.audit.record import a59_record, lines
from secure_server.logs import write_all

_STDOUT = 1


class StdoutSettings(BaseModel):
    """None. What is there is ignored, as in grpc-go and C++."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class StdoutLogger:
    """Writes A59's line to standard output.

    To the descriptor: what Python has around it may be waiting for somebody else's lock, and a
    thread that holds that one when the process ends would be a fatal error.
    """

    def write(self, events: Sequence[AuditEvent]) -> None:
        chunk = b""
        for line in lines(map(a59_record, events)):
            # A pipe takes so much as a whole: no other writer gets into the middle of a line.
            if chunk and len(chunk) + len(line) > select.PIPE_BUF:
                write_all(_STDOUT, chunk)
                chunk = b""
            chunk += line
        write_all(_STDOUT, chunk)

    def close(self) -> None:
        pass


STDOUT = AuditLoggerType(StdoutSettings, lambda _settings: StdoutLogger())
