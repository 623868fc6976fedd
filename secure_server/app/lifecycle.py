"""One server: built, started, stopped, and everything let go of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import grpc

from secure_server import logs
from secure_server.app.addresses import HTTP
from secure_server.app.build import build_service
from secure_server.app.http import HTTPServer
from secure_server.app.metrics import Metrics, publish
from secure_server.app.pages import Stage, pages
from secure_server.audit.loggers import FLUSH
from secure_server.config import Config
from secure_server.guard.listener.rotation import Built, ListenerRotation
from secure_server.guard.listener.sockets import ListenError
from secure_server.guard.refusal_log import AuditEvent, log_refusal
from secure_server.limits import channel_arguments

_MOMENT = 1.0
"""Seconds for audit events to be written where calls in flight took the whole grace."""


class Server:
    """One server, from a configuration to its graceful end.

    Building it opens the store and binds the port; ``start`` serves. Use ``stop`` in any case: it
    also lets go of what an unstarted server holds.
    """

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        """Raises ``ServerError`` and the other errors of ``mistakes``, for what cannot be used:
        those that ``check_service`` finds.
        """
        self._config = config
        self._log = logs.logger("secure_server")
        self._metrics = Metrics()
        self._stage = Stage(threading.Event(), threading.Event())
        self._undo = ExitStack()
        try:
            self._build(clock)
        except BaseException:
            self._undo.close()
            raise

    def _build(self, clock: Callable[[], float]) -> None:
        config = self._config
        service = self._service = build_service(
            config,
            audit=self._audit,
            call_ended=self._metrics.call_ended,
            stopping=self._stage.stopping,
            clock=clock,
            undo=self._undo,
        )
        self._guard = service.guard
        self._door = self._guard.thread_pool()
        self._undo.callback(self._door.shutdown, wait=False)
        self._listeners = ListenerRotation(
            self._build_listener,
            self._guard.server_credentials,
            config.server.listen,
            retire=config.server.retire,
            grace=config.server.grace,
            forget=self._guard.streams.forget,
        )
        self.address = self._listeners.address
        service.parts.certificates.on_serving(self._listeners.rotate)
        service.parts.follow()  # from here on, so that no change is missed
        publish(self._metrics, service, self._listeners)
        self._pages = pages(service, self._metrics, self._stage)
        if config.http.listen is not None:
            self._bind_http(config.http.listen)

    def _build_listener(self) -> Built:
        """Build a server of the servicers and pools that all of them share."""
        interceptor = self._guard.interceptor()
        # Two at once: one that was replaced keeps its connections for a while.
        options = channel_arguments(self._config.server.limits, servers=2)
        server = grpc.server(self._door, interceptors=[interceptor], options=options)
        for add in self._service.servicers.add:
            add(server)
        return Built(server, interceptor.streams)

    def _bind_http(self, listen: str) -> None:
        try:
            http = self._http = HTTPServer(listen, self._pages)
        except OSError:
            raise ListenError(listen, HTTP) from None
        self._undo.callback(http.stop)
        self.http_address = http.address

    def _audit(self, event: AuditEvent) -> None:
        self._metrics.count_audit(event)
        log_refusal(event)

    def start(self) -> None:
        """Begin to serve. Raises ``StoreError``."""
        if self._config.http.listen is not None:
            self._http.start()
        self._service.revocations.refresh()  # what was revoked while this was built
        self._listeners.start()
        self._stage.started.set()
        self._log.info("serving", address=self.address, http=getattr(self, "http_address", None))

    def stop(self) -> None:
        """Take no new call, let those in flight finish within the grace, and let go of everything.

        Streams are told as ``ListenerRotation.stop`` says.
        """
        service = self._service
        if not self._stage.stopping.is_set():
            over = time.monotonic() + self._config.server.grace
            self._stage.stopping.set()
            service.servicers.health.enter_shutdown()
            self._listeners.stop(refusing=service.servicers.changes.close)
            if service.parts.policy_file is not None:
                service.parts.policy_file.close(min(FLUSH, max(_MOMENT, over - time.monotonic())))
            self._log.info("stopped", address=self.address)
        self._undo.close()
