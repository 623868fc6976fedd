"""The pages of ``[http]``: liveness, readiness, health, metrics and the key set."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from secure_server.app.build import Service
from secure_server.app.http import Page, json_page
from secure_server.app.metrics import Metrics
from secure_server.guard.watchdog import Watchdog

_UNAVAILABLE = "503 Service Unavailable"
_STARTING = "The server is starting; it answers calls in a moment."
_STOPPING = "The server is stopping: it takes no new calls."
_FEED_IS_STALE = (
    "What was revoked is not known any more: the store could not be read for longer than [store] "
    "max_feed_staleness. Calls with tokens are refused until it can."
)
_STORE_IS_GONE = (
    "The file of the store is gone, or another is in its place: what is written now is lost with "
    "the next start. Put the file back, or stop the server, restore the store and start it again."
)


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a server is: both events are set once and stay so."""

    started: threading.Event
    stopping: threading.Event


def pages(service: Service, metrics: Metrics, stage: Stage) -> Mapping[str, Page]:
    """Return what answers each path."""
    health = _Health(service, stage)
    return {
        "/healthz": health.healthz,
        "/livez": health.livez,
        "/readyz": health.readyz,
        "/metrics": lambda: (
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
            metrics.exposition(),
        ),
        "/.well-known/jwks.json": lambda: json_page({"keys": service.keys.ring().public_jwks()}),
    }


@dataclass(frozen=True, slots=True)
class _Health:
    service: Service
    stage: Stage

    def healthz(self) -> tuple[str, str, bytes]:
        if self.stage.stopping.is_set() or not self.stage.started.is_set():
            return json_page({"status": "NOT_SERVING"}, _UNAVAILABLE)
        return json_page({"status": "SERVING", "warnings": self._warnings})

    def livez(self) -> tuple[str, str, bytes]:
        """Ask nothing but the watchdog: a restart mends no store and no certificate."""
        watchdog = self.service.guard.watchdog
        if stalled := watchdog.stalled_seconds:
            reasons = [_stalled(watchdog)]
            return json_page(
                {"status": "STALLED", "stalled_seconds": stalled, "reasons": reasons}, _UNAVAILABLE
            )
        return json_page({"status": "ALIVE"})

    def readyz(self) -> tuple[str, str, bytes]:
        service = self.service
        reasons = []
        if not self.stage.started.is_set():
            reasons.append(_STARTING)
        if self.stage.stopping.is_set():
            reasons.append(_STOPPING)
        if not service.revocations.is_current:
            reasons.append(_FEED_IS_STALE)
        if not service.database.is_in_place:
            reasons.append(_STORE_IS_GONE)
        if service.guard.watchdog.stalled_seconds:
            reasons.append(_stalled(service.guard.watchdog))
        if reasons:
            return json_page({"status": "NOT_READY", "reasons": reasons}, _UNAVAILABLE)
        return json_page({"status": "READY", "warnings": self._warnings})

    @property
    def _warnings(self) -> list[str]:
        return [*self.service.parts.certificates.warnings, *self.service.guard.reloads.warnings]


def _stalled(watchdog: Watchdog) -> str:
    if watchdog.has_ended:
        return (
            "The serving thread has ended: no call is answered. Restart the server; its log has "
            "the exception that ended the thread."
        )
    return (
        f"The serving thread has not moved for {watchdog.stalled_seconds:.0f} seconds: no call is "
        "answered. Restart the server; its log has the stack of every thread."
    )
