"""What operators measure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from secure_server.guard import AuditEvent

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
        """Publish a value that is asked for when somebody looks."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def counter(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Publish what somebody else counts."""
        self._registry.register(_Asked(CounterMetricFamily, name, text, (), lambda: {(): value()}))

    def counters(
        self, name: str, text: str, label: str, values: Callable[[], Mapping[str, float]]
    ) -> None:
        """Publish what somebody else counts by a label."""
        self._labelled(CounterMetricFamily, name, text, label, values)

    def gauges(
        self, name: str, text: str, label: str, values: Callable[[], Mapping[str, float]]
    ) -> None:
        """Publish values that are asked for when somebody looks, by a label."""
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
    """What is asked for when somebody looks."""

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
