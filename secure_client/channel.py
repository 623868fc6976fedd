"""``connect``: a channel with mutual TLS, tokens, deadlines, retries, rotated certificates."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Self

import grpc

from secure_client._endpoint import Endpoint
from secure_client._files import FOLLOWER, Files
from secure_client._methods import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from secure_client._rotation import (
    PATIENCE,
    SETTLED,
    UNREACHABLE,
    ChannelRotation,
    CountedChannel,
    Methods,
)
from secure_client.errors import ClientError
from secure_tls import TLSError

if TYPE_CHECKING:
    from secure_client._identity import Identity
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
    ``certificate`` and ``private_key`` are PEM files; within a second or two of their replacement
    new calls use the new ones, and calls in flight finish on the old. If the new ones cannot be
    used the old ones stay, and the logger ``secure_client`` says why. Every channel speaks TLS,
    so no token is sent in the clear.

    ``tokens`` gives every call its access token. A unary call that the server answers with
    UNAUTHENTICATED is sent once more with a fresh token. While the source has none, calls fail
    with UNAVAILABLE.

    ``server_name`` is the name that the server's certificate must have instead of the target's
    host. It decides which servers the client trusts: set it only to the name of the one server
    meant.

    ``timeout`` is the deadline in seconds of a unary-unary call that sets none; streams have none
    of their own. ``idempotent_methods`` may be retried on UNAVAILABLE: descriptors of services,
    whose option ``idempotency_level`` decides, or names as ``package.Service/Method``. Those of
    the services shipped here are known.

    Raises ``ConfigurationError``, and ``secure_tls.TLSFileError`` for a file that gRPC must not
    get.
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
    """The ``grpc.Channel`` that ``connect`` returns, over counted channels."""

    _kinds: ClassVar = {
        "unary_unary": UnaryUnary,
        "unary_stream": UnaryStream,
        "stream_unary": StreamUnary,
        "stream_stream": StreamStream,
    }

    def __init__(self, endpoint: Endpoint) -> None:
        self.timeout = endpoint.timeout
        self._files = Files(endpoint)
        self._rotation = ChannelRotation(
            endpoint,
            self._files.identity,
            lambda credentials: grpc.secure_channel(endpoint.target, credentials, endpoint.options),
            lambda channel: threading.Thread(target=_close, args=(channel,), daemon=True).start(),
        )
        self._subscribers: list[Callable[[grpc.ChannelConnectivity], None]] = []
        self._changed = threading.Condition()
        self._renewing: threading.Thread | None = None
        self._closed = False
        FOLLOWER.add(self)

    def counted_channel(self) -> CountedChannel:
        """Count one call on the current channel, and return that channel."""
        while not (counted := self._rotation.current).enter():
            if self._closed:
                raise ValueError("Cannot invoke RPC on closed channel!")
        return counted

    def look(self) -> None:
        """Begin to replace the channel if its files have changed."""
        if self._files.changed():
            self._begin()

    def look_and_wait(self, timeout: float | None = None) -> None:
        """As ``look``, and wait until that is done, at most ``timeout`` seconds."""
        if self._files.changed() and (renewing := self._begin()) is not None:
            renewing.join(timeout if timeout is None else max(timeout, 0.0))

    @property
    def is_closed(self) -> bool:
        return self._closed

    def wait(self, seconds: float) -> None:
        """Wait for ``seconds``, or until the channel is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _begin(self) -> threading.Thread | None:
        with self._changed:
            if self._closed:
                return None
            if self._renewing is None or not self._renewing.is_alive():
                self._renewing = threading.Thread(target=self._renew, daemon=True)
                self._renewing.start()
            return self._renewing

    def _renew(self) -> None:
        try:
            identity = self._files.read()
            if identity is not None:
                self._take(identity, self._rotation.open(identity, self._rotation.current))
        except (TLSError, ClientError) as error:
            self._files.refuse(str(error))
        except Exception as error:  # noqa: BLE001 - after any error the old channel stays
            self._files.refuse(type(error).__name__)

    def _take(self, identity: Identity, counted: CountedChannel) -> None:
        taken = False
        try:
            if not self._files.is_pressing():
                self._connect(counted.channel)
                counted.prepare()
            with self._changed:
                if not self._closed:
                    for subscriber in self._subscribers:
                        self._rotation.current.channel.unsubscribe(subscriber)
                        counted.channel.subscribe(subscriber)
                    self._rotation.replace(counted)
                    self._files.take(identity)
                    taken = True
        finally:
            if not taken:
                _close(counted.channel)

    def _connect(self, channel: grpc.Channel) -> None:
        states = [grpc.ChannelConnectivity.IDLE]

        def note(state: grpc.ChannelConnectivity) -> None:
            with self._changed:
                states.append(state)
                self._changed.notify_all()

        channel.subscribe(note, try_to_connect=True)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or states[-1] in SETTLED, PATIENCE)
        channel.unsubscribe(note)
        if states[-1] is not grpc.ChannelConnectivity.READY:
            raise ClientError(UNREACHABLE)

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,  # noqa: FBT001, FBT002 - grpc.Channel's own signature
    ) -> None:
        with self._changed:
            self._subscribers.append(callback)
            self._rotation.current.channel.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        with self._changed:
            if callback in self._subscribers:
                self._subscribers.remove(callback)
            self._rotation.current.channel.unsubscribe(callback)

    def close(self) -> None:
        """End every call with CANCELLED, as ``grpc.Channel`` does."""
        FOLLOWER.discard(self)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for counted in self._rotation.all():
            counted.retire()
            counted.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close(channel: grpc.Channel) -> None:
    # gRPC's connectivity thread ends within 0.2 seconds of the last `unsubscribe`, and crashes
    # if the channel is closed before that (grpc/grpc#18995).
    time.sleep(0.5)
    channel.close()
