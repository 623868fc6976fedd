"""What operators measure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from secure_server import logs
from secure_server.app.build import Service
from secure_server.audit.event import AuditEvent
from secure_server.guard.listener.rotation import ListenerRotation

_Family = type[CounterMetricFamily] | type[GaugeMetricFamily]


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = _Calls()
        self._registry.register(self._calls)
        self.call_ended = self._calls.count  # without a method in between
        self._refusals = Counter(
            "secure_grpc_refusals",
            "Calls that the guard refused, by the reason that audit has.",
            ["reason"],
            registry=self._registry,
        )

    def count_audit(self, event: AuditEvent) -> None:
        """Count a refusal: an audit logger."""
        if not event.allowed:
            self._refusals.labels(event.code).inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Publish a value that is asked for at each scrape."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def counter(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Publish a count that another part keeps."""
        self._registry.register(_Asked(CounterMetricFamily, name, text, (), lambda: {(): value()}))

    def counters(
        self, name: str, text: str, label: str, values: Callable[[], Mapping[str, float]]
    ) -> None:
        """Publish counts that another part keeps, by a label."""
        self._labelled(CounterMetricFamily, name, text, label, values)

    def gauges(
        self, name: str, text: str, label: str, values: Callable[[], Mapping[str, float]]
    ) -> None:
        """Publish values that are asked for at each scrape, by a label."""
        self._labelled(GaugeMetricFamily, name, text, label, values)

    def _labelled(
        self,
        family: _Family,
        name: str,
        text: str,
        label: str,
        values: Callable[[], Mapping[str, float]],
    ) -> None:
        self._registry.register(
            _Asked(family, name, text, (label,), lambda: {(k,): v for k, v in values().items()})
        )

    def exposition(self) -> bytes:
        """Return all of them in the Prometheus text format."""
        return generate_latest(self._registry)


class _Asked(Collector):
    """What is asked for at each scrape."""

    def __init__(
        self,
        family: _Family,
        name: str,
        text: str,
        labels: tuple[str, ...],
        values: Callable[[], Mapping[tuple[str, ...], float]],
    ) -> None:
        self._family = family
        self._name = name
        self._text = text
        self._labels = labels
        self._values = values

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        family = self._family(self._name, self._text, labels=self._labels)
        for labels, value in self._values().items():
            family.add_metric(labels, value)
        yield family


class _Calls(Collector):
    """Counts calls by method and status. A ``Counter`` takes twice as long, on every call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._created: dict[tuple[str, str], float] = {}

    def count(self, method: str, code: str) -> None:
        key = (method, code)
        with self._lock:
            count = self._counts.get(key, 0)
            self._counts[key] = count + 1
            if not count:
                self._created[key] = time.time()

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "secure_grpc_calls",
            "Calls that ended, by method and gRPC status.",
            labels=("method", "code"),
        )
        with self._lock:
            counts = dict(self._counts)
        for labels, count in counts.items():
            family.add_metric(labels, count, created=self._created[labels])
        yield family


def publish(metrics: Metrics, service: Service, listeners: ListenerRotation) -> None:
    """Publish what the parts of a server count themselves."""
    guard = service.guard
    metrics.gauge("secure_grpc_open_streams", "Streams open now.", lambda: len(guard.streams))
    metrics.gauge(
        "secure_grpc_certificate_expiry_time_seconds",
        "When the server certificate ends, in seconds since the epoch.",
        lambda: service.parts.certificates.expires_at,
    )
    metrics.counters(
        "secure_grpc_reload_failures",
        "How often a source could not be reloaded, since the start.",
        "source",
        lambda: {source: one.failures for source, one in guard.reloads.statuses.items()},
    )
    metrics.gauges(
        "secure_grpc_reload_success_time_seconds",
        "When a source was loaded last, in seconds since the epoch; 0 for never.",
        "source",
        lambda: {source: one.succeeded_at for source, one in guard.reloads.statuses.items()},
    )
    metrics.counter(
        "secure_grpc_listener_rotations",
        "How often another certificate, key or authority was served, since the start.",
        lambda: listeners.count - 1,
    )
    metrics.counters(
        "secure_grpc_audit_dropped",
        "Audit events that a logger did not write, and lines of the log.",
        "logger",
        lambda: _dropped(service),
    )
    metrics.gauge(
        "secure_grpc_serving_thread_stalled_seconds",
        "For how long the serving thread has not moved; 0 unless that is 5 seconds or more.",
        lambda: guard.watchdog.stalled_seconds,
    )
    metrics.counter(
        "secure_grpc_serving_thread_stalls",
        "How often the serving thread has not moved for 5 seconds, since the start.",
        lambda: guard.watchdog.stalls,
    )


def _dropped(service: Service) -> dict[str, int]:
    file = service.parts.policy_file
    dropped = {} if file is None else file.loggers.dropped.counts
    return {"log": logs.lost_lines(), **dropped}
