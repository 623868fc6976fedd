"""The audit loggers that are told, and what was lost on the way to them."""

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
"""Events that wait for one logger at the most."""
FLUSH = 5.0
"""Seconds that loggers get for what they still have to write."""

_AT_ONCE = 256
_LINGER = 0.02  # seconds
_SAY_EVERY = 60.0  # seconds
_A_MOMENT = 0.5  # seconds


@dataclass(slots=True)
class _Tally:
    count: int = 0
    unsaid: int = 0
    reason: str = ""


class Dropped:
    """Counts events that no logger has written, and says so in the log once a minute.

    On a thread that there is only while there is something to say: a call that waited for the log
    would be a call that waited for a logger.
    """

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._saying: threading.Thread | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()

    @property
    def counts(self) -> Mapping[str, int]:
        """By logger, zeros included, since the start."""
        with self._lock:
            return {name: tally.count for name, tally in self._tallies.items()}

    def expect(self, logger: str) -> None:
        """Count from zero: whoever measures wants to see that there is nothing."""
        with self._lock:
            self._tallies.setdefault(logger, _Tally())

    def add(self, logger: str, count: int, reason: str) -> None:
        """Count what one that was expected has lost, and have it said."""
        with self._lock:
            tally = self._tallies[logger]
            tally.count += count
            tally.unsaid += count
            tally.reason = reason
            if self._saying is None:
                self._saying = threading.Thread(target=self._say, name="audit lost", daemon=True)
                self._saying.start()

    def close(self) -> None:
        """Say what is unsaid."""
        self._over.set()
        with self._lock:
            saying = self._saying
        if saying is not None:
            saying.join(_A_MOMENT)

    def _say(self) -> None:
        log = logs.logger("secure_server.audit")
        while lost := self._take_unsaid():
            for name, count, reason in lost:
                log.error("audit events were lost", audit_logger=name, count=count, reason=reason)
            self._over.wait(_SAY_EVERY)

    def _take_unsaid(self) -> list[tuple[str, int, str]]:
        with self._lock:
            lost = [(name, one.unsaid, one.reason) for name, one in self._tallies.items()]
            for tally in self._tallies.values():
                tally.unsaid = 0
            lost = [each for each in lost if each[1]]
            if not lost:
                self._saying = None
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
    """Tells the loggers of the policy in force, each by a queue and a thread of its own.

    A class because they change with the policy while calls go on: those that stay as they are keep
    what they have open. None of them can hold up a call, or another logger.
    """

    def __init__(self) -> None:
        self.dropped = Dropped()
        # Replaced together.
        self._told: tuple[AuditCondition, tuple[_Running, ...]] = (AuditCondition.NONE, ())

    def write(self, event: AuditEvent) -> None:
        """Tell them of a decision, where the policy's condition wants it told.

        To refuse credentials is no decision of the policy's; it is told where denials are.
        """
        condition, running = self._told
        if condition.wants(allowed=event.allowed):
            for one in running:
                one.queued.put(event)

    def replace(self, configured: Sequence[ConfiguredLogger], condition: AuditCondition) -> None:
        """Tell these from now on. Raises ``AuditLoggerError``, and then all stays as it is."""
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
        """Take no more events, and give the loggers so long to write what they have."""
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
