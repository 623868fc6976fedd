"""One port, served by one gRPC server after the other: a new certificate without a restart.

A client can crash gRPC's own way of changing credentials (grpc/grpc#36693). So each set of
certificates gets its own server on the same port; the previous server accepts no new connection,
and its clients reconnect as their connections reach their age (``grpc.max_connection_age_ms``),
which costs no call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from secure_server import logs
from secure_server.guard.listener.sockets import (
    ListenError,
    check_free,
    listening_sockets,
    stop_listening,
)
from secure_server.guard.streams.pool import ServerStreams

_KEY = "[server] listen"

_OVERLAP = 0.3
"""Seconds in which both servers accept connections, where one listener cannot be closed alone."""

_MOMENT = 1.0
"""Seconds after the grace in which a server whose calls were cancelled must have stopped."""


@dataclass(frozen=True, slots=True)
class Built:
    """A server that is built and not yet bound, and the group of its streams."""

    server: grpc.Server
    streams: ServerStreams


@dataclass(slots=True)
class _Listener:
    built: Built
    listeners: frozenset[int]
    """The inodes of its listening sockets."""
    retires_at: float = float("inf")


class ListenerRotation:
    """Builds, serves and retires servers on one address."""

    def __init__(
        self,
        build: Callable[[], Built],
        credentials: Callable[[], grpc.ServerCredentials],
        listen: str,
        *,
        retire: float,
        grace: float,
        forget: Callable[[ServerStreams], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind the first one. ``build`` makes servers that share what they must share, with
        ``grpc.so_reuseport`` on.

        ``retire`` is the seconds that connections of a server that was replaced get, and ``grace``
        those that its calls get then. Raises ``ListenError``.
        """
        self._build = build
        self._credentials = credentials
        self._retire = retire
        self._grace = grace
        self._forget = forget
        self._clock = clock
        self._retiring: list[_Listener] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._over = False
        self.count = 1
        check_free(listen, _KEY)
        self._current, port = self._bind(listen)
        # Port 0 is resolved once: later servers bind the resolved number.
        self.address = f"{listen.rpartition(':')[0]}:{port}"
        self._reaper = threading.Thread(target=self._reap, name="listener", daemon=True)

    @property
    def retiring(self) -> int:
        """How many replaced servers still serve their connections."""
        return len(self._retiring)

    def start(self) -> None:
        """Begin to serve."""
        self._current.built.server.start()
        self._reaper.start()

    def rotate(self) -> None:
        """Start a server with the current credentials; retire the previous one."""
        log = logs.logger(__name__)
        with self._lock:
            if self._over:
                return
            try:
                new, _ = self._bind(self.address)
            except ListenError as error:
                log.warning(
                    "the new certificate cannot be served, the old one stays", reason=str(error)
                )
                return
            new.built.server.start()
            old, self._current = self._current, new
            self.count += 1
            alone = stop_listening(old.listeners)
            # A listener left open gets connections from the kernel until its server stops.
            old.retires_at = self._clock() + (self._retire if alone else _OVERLAP)
            self._retiring.append(old)
        log.info("a new certificate is served", address=self.address, retiring=self.retiring)
        self._wake.set()

    def stop(self, refusing: Callable[[], object] = lambda: None) -> None:
        """Accept no new call, and let those in flight finish within the grace.

        ``refusing`` is called once new calls are refused: a caller who is told to connect again
        must not find this server. Then streams that could run for ever end at once, others after a
        third of the grace, with UNAVAILABLE and reason SERVER_ROTATING. Returns at most a second
        after the grace, even if a servicer or an interceptor on the serving thread is stuck; the
        log says so.
        """
        with self._lock:
            self._over = True
            listeners = [self._current, *self._retiring]
        self._wake.set()
        begun, stopped = zip(
            *(_stop(each.built.server, self._grace) for each in listeners), strict=True
        )
        now = self._clock()
        for one in begun:
            one.wait(max(0.0, now + _MOMENT - self._clock()))
        refusing()
        for each in listeners:
            each.built.streams.end_non_blocking()
        for number, one in enumerate(stopped):
            if not one.wait(max(0.0, now + self._grace / 3 - self._clock())):
                listeners[number].built.streams.end_all()
        end = now + self._grace + _MOMENT
        if not all([one.wait(max(0.0, end - self._clock())) for one in stopped]):  # noqa: C419 - all
            logs.logger(__name__).error(
                "a server did not stop: its serving thread is stalled", grace=self._grace
            )

    def _bind(self, address: str) -> tuple[_Listener, int]:
        built = self._build()
        before = frozenset(listening_sockets())
        try:
            port = built.server.add_secure_port(address, self._credentials())
        except RuntimeError:
            port = 0
        if not port:
            self._forget(built.streams)
            raise ListenError(address, _KEY)
        return _Listener(built, frozenset(listening_sockets()) - before), port

    def _reap(self) -> None:
        while not self._over:
            with self._lock:
                due = [one for one in self._retiring if one.retires_at <= self._clock()]
                self._retiring = [one for one in self._retiring if one not in due]
                nearest = min((one.retires_at for one in self._retiring), default=None)
            for one in due:
                one.built.streams.end_all()
                one.built.server.stop(min(self._grace, self._retire))
                self._forget(one.built.streams)
            wait = None if nearest is None else max(0.0, nearest - self._clock())
            self._wake.wait(wait)
            self._wake.clear()


def _stop(server: grpc.Server, grace: float) -> tuple[threading.Event, threading.Event]:
    """Return two events: the server refuses new calls; the server has stopped.

    On a thread of its own: a serving thread that is stalled inside an interceptor holds the lock
    that ``stop`` takes.
    """
    begun, stopped = threading.Event(), threading.Event()

    def stop() -> None:
        ended = server.stop(grace)
        begun.set()
        ended.wait()
        stopped.set()

    threading.Thread(target=stop, name="stop", daemon=True).start()
    return begun, stopped
