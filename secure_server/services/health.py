"""``grpc.health.v1.Health``: whether the services are served (gRPC's "Health Checking Protocol").

Not the servicer of grpcio-health-checking, for two reasons: its ``Watch`` needs the function that
sends, which an interceptor around the handler may not pass on, and it sends while it holds the lock
that each of its other calls needs. This servicer holds no lock while it sends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthServicer

from secure_server import logs

Send = Callable[[Any], None]

_SERVING = pb.HealthCheckResponse.SERVING
_NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


class _Watcher:
    """One ``Watch`` call. Sends the current status once, and again each time it has changed."""

    def __init__(self, send: Send, status: Callable[[], int]) -> None:
        self._send = send
        self._status = status
        self._sent: int | None = None
        self._sending = threading.Lock()  # never waited for: its holder sends later changes too

    def tell(self) -> None:
        """Send the status if it has changed. ``send`` does not block: the guard queues messages."""
        while (status := self._status()) != self._sent and self._sending.acquire(blocking=False):
            try:
                self._send(pb.HealthCheckResponse(status=status))
                self._sent = status
            finally:
                self._sending.release()


class Health(HealthServicer):  # type: ignore[misc] # the generated class has no types
    """Answers SERVING for these services and for the whole server, until ``enter_shutdown``."""

    def __init__(self, services: Iterable[str]) -> None:
        self._statuses = dict.fromkeys(("", *services), _SERVING)
        self._watchers: set[_Watcher] = set()

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        status = self._statuses.get(request.service)
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "This service is not known here.")
        return pb.HealthCheckResponse(status=status)

    def Watch(self, request: Any, context: Any, send: Send | None = None) -> Any:
        if send is None:
            return self._statuses_until_the_end(request.service, context)
        self._watch(request.service, context, send).tell()
        return None

    # The guard passes a ``send`` function, and keeps no thread for the stream.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def enter_shutdown(self) -> None:
        """Answer NOT_SERVING from now on, and send it to every watcher."""
        self._statuses = dict.fromkeys(self._statuses, _NOT_SERVING)
        for watcher in tuple(self._watchers):
            try:
                watcher.tell()
            except Exception:  # noqa: BLE001 - one failing watcher must not stop the others
                logs.logger(__name__).exception(
                    "a Health/Watch stream could not be sent its status"
                )

    def _statuses_until_the_end(self, service: str, context: Any) -> Iterator[Any]:
        """Yield the statuses, behind an interceptor whose handler wrapper passes no ``send``."""
        statuses: SimpleQueue[Any] = SimpleQueue()
        watcher = self._watch(service, context, statuses.put)
        if context.add_callback(lambda: statuses.put(None)):
            watcher.tell()
            yield from iter(statuses.get, None)

    def _watch(self, service: str, context: Any, send: Send) -> _Watcher:
        watcher = _Watcher(send, lambda: self._status(service))
        self._watchers.add(watcher)
        if not context.add_callback(lambda: self._watchers.discard(watcher)):
            self._watchers.discard(watcher)  # the caller has hung up already
        return watcher

    def _status(self, service: str) -> int:
        return int(self._statuses.get(service, _UNKNOWN))
