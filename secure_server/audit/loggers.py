"""Passing audit events to the loggers of the policy, and counting those that were dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secure_base.batching import BatchingWriter
from secure_server import logs
from secure_server.audit.event import AuditEvent
from secure_server.audit.options import ConfiguredLogger
from secure_server.authz.audit_options import AuditCondition

MOST = 4096
"""Most events that wait for one logger."""
FLUSH = 5.0
"""Seconds that a closed logger has to write the events that still wait."""

_AT_ONCE = 256
_LINGER = 0.02  # seconds
_LOG_EVERY = 60.0  # seconds
_A_MOMENT = 0.5  # seconds


@dataclass(slots=True)
class _Tally:
    count: int = 0
    unlogged: int = 0
    reason: str = ""


class Dropped:
    """Counts the events that each logger has dropped, and logs the counts once a minute.

    A thread does the logging, so that no call waits for the log; it runs only while there are
    counts to log.
    """

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._log_thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()

    @property
    def counts(self) -> Mapping[str, int]:
        """Dropped events since the start by logger, including loggers that dropped none."""
        with self._lock:
            return {name: tally.count for name, tally in self._tallies.items()}

    def expect(self, logger: str) -> None:
        """Add a logger with a count of 0, so that metrics show it before it drops an event."""
        with self._lock:
            self._tallies.setdefault(logger, _Tally())

    def add(self, logger: str, count: int, reason: str) -> None:
        """Count events that a logger, which was ``expect``ed before, has dropped, and log the
        count.
        """
        with self._lock:
            tally = self._tallies[logger]
            tally.count += count
            tally.unlogged += count
            tally.reason = reason
            if self._log_thread is None:
                self._log_thread = threading.Thread(
                    target=self._log_counts, name="audit lost", daemon=True
                )
                self._log_thread.start()

    def close(self) -> None:
        """Log the counts that have not been logged."""
        self._over.set()
        with self._lock:
            log_thread = self._log_thread
        if log_thread is not None:
            log_thread.join(_A_MOMENT)

    def _log_counts(self) -> None:
        log = logs.logger("secure_server.audit")
        while lost := self._take_unlogged():
            for name, count, reason in lost:
                log.error("audit events were lost", audit_logger=name, count=count, reason=reason)
            self._over.wait(_LOG_EVERY)

    def _take_unlogged(self) -> list[tuple[str, int, str]]:
        with self._lock:
            lost = [(name, one.unlogged, one.reason) for name, one in self._tallies.items()]
            for tally in self._tallies.values():
                tally.unlogged = 0
            lost = [each for each in lost if each[1]]
            if not lost:
                self._log_thread = None
            return lost


@dataclass(frozen=True, slots=True)
class _Running:
    configured: ConfiguredLogger
    queued: BatchingWriter[AuditEvent]


def told(
    configured: Sequence[ConfiguredLogger], condition: AuditCondition
) -> Sequence[ConfiguredLogger]:
    """Return the loggers that are opened under this condition: under ``NONE`` nothing is told."""
    return () if condition is AuditCondition.NONE else configured


class Loggers:
    """Passes events to the loggers of the current policy. Each has a queue and a thread of its own,
    so no logger can delay a call or another logger.

    A class because the loggers change with the policy while calls are running: a logger whose
    configuration stays the same keeps its file or connection.
    """

    def __init__(self) -> None:
        self.dropped = Dropped()
        # Replaced together.
        self._told: tuple[AuditCondition, tuple[_Running, ...]] = (AuditCondition.NONE, ())

    def write(self, event: AuditEvent) -> None:
        """Pass a decision to the loggers, where the policy's ``audit_condition`` wants it.

        A refusal of credentials is no decision of the policy, but is treated like a denial.
        """
        condition, running = self._told
        if condition.wants(allowed=event.allowed):
            for one in running:
                one.queued.put(event)

    def replace(self, configured: Sequence[ConfiguredLogger], condition: AuditCondition) -> None:
        """Use these loggers from now on. Raises ``AuditLoggerError``, and keeps the old ones."""
        before = list(self._told[1])
        running: list[_Running] = []
        built: list[_Running] = []
        try:
            for each in told(configured, condition):
                same = next((one for one in before if one.configured == each), None)
                if same is not None:
                    before.remove(same)
                else:
                    same = self._start(each)
                    built.append(same)
                running.append(same)
        except BaseException:
            _close(built)
            raise
        self._told = (condition, tuple(running))
        _close(before)

    def close(self, seconds: float = FLUSH) -> None:
        """Accept no more events, and give the loggers ``seconds`` to write those that wait."""
        (_, running), self._told = self._told, (AuditCondition.NONE, ())
        _close(running, seconds)
        self.dropped.close()

    def _start(self, configured: ConfiguredLogger) -> _Running:
        name, sink = configured.name, configured.build()
        self.dropped.expect(name)
        queued: BatchingWriter[AuditEvent] = BatchingWriter(
            f"audit {name}",
            sink.write,
            most=MOST,
            at_once=_AT_ONCE,
            linger=_LINGER,
            dropped=lambda count, reason: self.dropped.add(name, count, reason),
            finish=sink.close,
        )
        return _Running(configured, queued)


def _close(running: Sequence[_Running], seconds: float = FLUSH) -> None:
    for one in running:
        one.queued.end()
    until = time.monotonic() + seconds
    for one in running:
        one.queued.close(until)
