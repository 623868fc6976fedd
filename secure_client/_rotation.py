"""gRPC channels that are replaced when their certificate is.

gRPC cannot change the certificate of a channel (grpc/grpc#41779), and closing a channel kills its
calls. So each gRPC channel counts its calls: once replaced, it takes no new ones and is closed
after its last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import grpc

if TYPE_CHECKING:
    from secure_client._credentials import TokenPlugin
    from secure_client._endpoint import Endpoint
    from secure_client._identity import Identity
    from secure_client.tokens.source import AccessToken
# Seconds that a new channel may take to connect, and the states that end the wait.
PATIENCE = 10.0
SETTLED = frozenset(
    {
        grpc.ChannelConnectivity.READY,
        grpc.ChannelConnectivity.TRANSIENT_FAILURE,
        grpc.ChannelConnectivity.SHUTDOWN,
    }
)
UNREACHABLE = (
    "no connection comes about with the new ones: the server may not know the certificate's "
    "authority, may be of another authority than the CA file names, or away."
)


class CountedChannel:
    """One gRPC channel of either stack, and the number of calls in flight on it.

    ``close`` must close the channel without waiting: it may run on a thread of gRPC's own, which
    closing waits for.
    """

    def __init__(
        self,
        channel: Any,
        identity: Identity,
        plugin: TokenPlugin | None,
        close: Callable[[CountedChannel], object],
    ) -> None:
        self.channel = channel
        self.identity = identity
        self._plugin = plugin
        self._close = close
        self._lock = threading.Lock()
        self._calls = 0
        self._retired = False

    def enter(self) -> bool:
        """Count one call; False when the channel takes no more."""
        with self._lock:
            if self._retired:
                return False
            self._calls += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._calls -= 1
            last = self._retired and self._calls == 0
        if last:
            self._close(self)

    def retire(self) -> bool:
        """Take no more calls, and close after the last; True when none is in flight."""
        with self._lock:
            self._retired = True
            return self._calls == 0

    def busy(self) -> bool:
        with self._lock:
            return self._calls > 0

    def prepare(self) -> None:
        """Fetch a token for the first call; blocks. Raises ``TokenError`` where there is none."""
        if self._plugin is not None:
            self._plugin.prepare()

    def token(self) -> AccessToken | None:
        """The token that was sent last."""
        return self._plugin.last if self._plugin is not None else None

    def refused_token(self, before: AccessToken | None, error: grpc.RpcError) -> AccessToken | None:
        """The token that the server refused; None where ``error`` is no refusal of a token.

        ``before`` is what ``token`` returned before the call.
        """
        if self._plugin is None or error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            return None
        # The oldest of the tokens that this call may have sent: a newer one may be good.
        return before or self._plugin.first

    def refuse(self, token: AccessToken) -> None:
        """Ask the source for a token other than ``token``, unless that was done meanwhile."""
        if self._plugin is not None:
            self._plugin.refuse(token)


class ChannelRotation:
    """The counted channel that takes new calls, and older ones with calls in flight.

    ``open_channel`` and ``close_channel`` belong to one of gRPC's stacks; for the latter see
    ``CountedChannel``.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        identity: Identity,
        open_channel: Callable[[grpc.ChannelCredentials], Any],
        close_channel: Callable[[Any], object],
    ) -> None:
        self._endpoint = endpoint
        self._open_channel = open_channel
        self._close_channel = close_channel
        self._lock = threading.Lock()
        self._old: set[CountedChannel] = set()
        self.current = self.open(identity, None)

    def open(self, identity: Identity, before: CountedChannel | None) -> CountedChannel:
        """Open a channel, which takes no calls until it is the current one."""
        credentials = identity.credentials()
        plugin = self._endpoint.plugin(identity, before)
        if plugin is not None:
            credentials = grpc.composite_channel_credentials(
                credentials, grpc.metadata_call_credentials(plugin)
            )
        channel = self._open_channel(credentials)
        return CountedChannel(channel, identity, plugin, self._close)

    def replace(self, counted: CountedChannel) -> None:
        """Send new calls over ``counted``, and retire the channel before."""
        old = self.current
        with self._lock:
            self._old.add(old)
        self.current = counted
        if old.retire():
            self._close(old)

    def all(self) -> list[CountedChannel]:
        """Every open channel."""
        with self._lock:
            return [self.current, *self._old]

    def _close(self, counted: CountedChannel) -> None:
        with self._lock:
            self._old.discard(counted)
        self._close_channel(counted.channel)


class RotatingMethod:
    """One method of the channel ``owner``, bound to its current counted channel."""

    def __init__(self, owner: Any, bind: Callable[[Any], Any]) -> None:
        self._owner = owner
        self._bind = bind
        self._bound: tuple[CountedChannel | None, Any] = (None, None)

    def on(self, counted: CountedChannel) -> Any:
        """The multi-callable of ``counted``."""
        bound, method = self._bound
        if bound is not counted:
            method = self._bind(counted.channel)
            self._bound = (counted, method)
        return method


class Methods:
    """The methods that generated stubs ask a channel for, of the classes in ``_kinds``."""

    _kinds: ClassVar[Mapping[str, type[RotatingMethod]]]

    def unary_unary(self, *details: Any, **more: Any) -> Any:
        return self._method("unary_unary", details, more)

    def unary_stream(self, *details: Any, **more: Any) -> Any:
        return self._method("unary_stream", details, more)

    def stream_unary(self, *details: Any, **more: Any) -> Any:
        return self._method("stream_unary", details, more)

    def stream_stream(self, *details: Any, **more: Any) -> Any:
        return self._method("stream_stream", details, more)

    def _method(
        self, kind: str, details: tuple[Any, ...], more: Mapping[str, Any]
    ) -> RotatingMethod:
        return self._kinds[kind](self, lambda channel: getattr(channel, kind)(*details, **more))
