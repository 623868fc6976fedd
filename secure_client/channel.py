"""One ready channel: mutual TLS, tokens, deadlines, retries, and new certificates as they come."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Self

import grpc

from secure_client._endpoint import Endpoint
from secure_client._lines import LOOK_EVERY, Line, Lines, Methods
from secure_client._methods import StreamStream, StreamUnary, UnaryStream, UnaryUnary

if TYPE_CHECKING:
    from secure_client._credentials import TokenPlugin
    from secure_client._service_config import IdempotentMethods
    from secure_client.tokens.source import TokenSource


def connect(
    target: str,
    *,
    ca: str | os.PathLike[str],
    certificate: str | os.PathLike[str] | None = None,
    private_key: str | os.PathLike[str] | None = None,
    tokens: TokenSource | None = None,
    server_name: str | None = None,
    timeout: float = 30.0,
    idempotent_methods: IdempotentMethods = (),
) -> grpc.Channel:
    """Open a channel to ``target`` for any generated stub; close it, or use it in a ``with``.

    ``target`` is a gRPC name such as ``host:port`` or ``dns:///host:port``. ``ca``,
    ``certificate`` and ``private_key`` are PEM files; when they are replaced, calls that begin
    later use the new ones and those in flight finish on the old. There is no channel without
    TLS, hence no token in the clear.

    ``tokens`` gives every call its access token. A unary call that the server answers with
    UNAUTHENTICATED is sent once more with a fresh one. While there is none, calls fail with
    UNAVAILABLE.

    ``server_name`` is the name that the server's certificate must have instead of the target's
    host. It decides whom the client trusts: treat it as security configuration, and set it only
    to the name of the one server meant.

    ``timeout`` is the deadline in seconds of a unary-unary call that sets none; streams have none
    of their own. ``idempotent_methods`` may be retried on UNAVAILABLE: descriptors of services,
    whose option ``idempotency_level`` decides, or names as ``package.Service/Method``. Those of
    the services shipped here are known.

    Raises ``ConfigurationError``, and ``secure_tls.TLSFileError`` for a file that gRPC had better
    not see.
    """
    return RotatingChannel(
        Endpoint(
            target,
            ca=ca,
            certificate=certificate,
            private_key=private_key,
            tokens=tokens,
            server_name=server_name,
            timeout=timeout,
            idempotent_methods=idempotent_methods,
        )
    )


class RotatingChannel(Methods, grpc.Channel):
    """An ordinary ``grpc.Channel`` over lines: what ``connect`` returns."""

    _kinds: ClassVar = {
        "unary_unary": UnaryUnary,
        "unary_stream": UnaryStream,
        "stream_unary": StreamUnary,
        "stream_stream": StreamStream,
    }

    def __init__(self, endpoint: Endpoint) -> None:
        self.timeout = endpoint.timeout
        self._endpoint = endpoint
        self._subscribers: list[Callable[[grpc.ChannelConnectivity], None]] = []
        self._lines = Lines(endpoint, self._open)
        self._looking = threading.Lock()
        self._look_at = time.monotonic() + LOOK_EVERY
        self._closed = False

    def line(self) -> Line:
        """The line for one call, which is counted on it."""
        if time.monotonic() >= self._look_at:
            self.look()
        while not (line := self._lines.current).enter():
            if self._closed:
                raise ValueError("Cannot invoke RPC on closed channel!")
        return line

    def look(self) -> None:
        """Replace the line if its files have changed; whoever comes second does not wait."""
        if self._closed or not self._looking.acquire(blocking=False):
            return
        try:
            self._look_at = time.monotonic() + LOOK_EVERY
            if (renewal := self._lines.renewal()) is not None:
                for subscriber in self._subscribers:
                    self._lines.current.channel.unsubscribe(subscriber)
                self._lines.replace(renewal)
        finally:
            self._looking.release()

    def _open(self, credentials: grpc.ChannelCredentials, plugin: TokenPlugin | None) -> Line:
        channel = grpc.secure_channel(self._endpoint.target, credentials, self._endpoint.options)
        for subscriber in self._subscribers:
            channel.subscribe(subscriber)
        return Line(
            channel, plugin, lambda: threading.Thread(target=channel.close, daemon=True).start()
        )

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,  # noqa: FBT001, FBT002 - grpc.Channel's own signature
    ) -> None:
        with self._looking:
            self._subscribers.append(callback)
            self._lines.current.channel.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        with self._looking:
            if callback in self._subscribers:
                self._subscribers.remove(callback)
            self._lines.current.channel.unsubscribe(callback)

    def close(self) -> None:
        """End every call with CANCELLED, as ``grpc.Channel`` does."""
        with self._looking:
            self._closed = True
            for line in self._lines.all():
                line.retire()
                line.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
