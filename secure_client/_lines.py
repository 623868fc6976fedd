"""Lines that are replaced when their certificate is.

A *line* is one gRPC channel with one certificate. gRPC cannot give a channel another one
(grpc/grpc#41779) and closing a channel kills its calls, so a line that is out of date takes no
new calls and is closed when its last one has ended.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import grpc

from secure_client._credentials import TokenPlugin
from secure_client.errors import ClientError
from secure_tls import TLSError

if TYPE_CHECKING:
    from secure_client._endpoint import Endpoint
    from secure_client.tokens.source import AccessToken

# How often the files are looked at, in seconds: three `stat`s.
LOOK_EVERY = 1.0

_Signature = tuple[tuple[int, int, int] | None, ...]


class Line:
    """One gRPC channel of either stack, and how many calls are under way on it.

    ``close`` sees to it that the channel is closed and does not wait for it: it may run on a
    thread of gRPC's own, which closing waits for.
    """

    def __init__(
        self, channel: Any, plugin: TokenPlugin | None, close: Callable[[], object]
    ) -> None:
        self.channel = channel
        self.close = close
        self._plugin = plugin
        self._lock = threading.Lock()
        self._calls = 0
        self._retired = False

    def enter(self) -> bool:
        """Count one call; false when the line takes no more."""
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
            self.close()

    def retire(self) -> bool:
        """Take no more calls, and close after the last; true when there is none to wait for."""
        with self._lock:
            self._retired = True
            return self._calls == 0

    def busy(self) -> bool:
        with self._lock:
            return self._calls > 0

    def token(self) -> AccessToken | None:
        """The token that was sent last."""
        return self._plugin.last if self._plugin is not None else None

    def refused_token(self, before: AccessToken | None, error: grpc.RpcError) -> AccessToken | None:
        """The token that the server did not take, None where ``error`` says something else.

        ``before`` is what ``token`` said before the call.
        """
        if self._plugin is None or error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            return None
        # Of the tokens that this call may have sent the oldest: a newer one is not to blame yet.
        return before or self._plugin.first

    def refuse(self, token: AccessToken) -> None:
        """Ask the source for another than ``token``, unless that has been done meanwhile."""
        if self._plugin is not None:
            self._plugin.refuse(token)


@dataclass(frozen=True, slots=True)
class Renewal:
    """The credentials of a line to come, and what the files looked like before they were read."""

    signature: _Signature
    credentials: grpc.ChannelCredentials
    plugin: TokenPlugin | None


class Lines:
    """The line that takes new calls, and those before it that still have some."""

    def __init__(
        self,
        endpoint: Endpoint,
        open_line: Callable[[grpc.ChannelCredentials, TokenPlugin | None], Line],
    ) -> None:
        self._endpoint = endpoint
        self._open = open_line
        # Looked at before it is read: what changes in between is noticed later.
        self._signature = _signature(endpoint.files)
        self.current = open_line(*endpoint.credentials(None))
        self._old: list[Line] = []

    def renewal(self) -> Renewal | None:
        """What to ``replace`` the line by, None while its files are the same.

        Reads files, and so may block.
        """
        signature = _signature(self._endpoint.files)
        if signature == self._signature:
            return None
        try:
            # A token may be bound to the old certificate (RFC 8705): ask for another.
            return Renewal(signature, *self._endpoint.credentials(self.current.token()))
        except (TLSError, ClientError, OSError):
            # Half replaced or wrong: the old line stays, and the next second tries again.
            return None

    def replace(self, renewal: Renewal) -> None:
        """Open a new line for the calls to come, and retire the old one."""
        old = self.current
        self.current = self._open(renewal.credentials, renewal.plugin)
        self._signature = renewal.signature
        if old.retire():
            old.close()
        self._old = [each for each in (*self._old, old) if each.busy()]

    def all(self) -> list[Line]:
        """Every line that may have a call."""
        return [self.current, *self._old]


class BoundMethod:
    """One method of the channel ``owner``, bound anew to every new line."""

    def __init__(self, owner: Any, bind: Callable[[Any], Any]) -> None:
        self._owner = owner
        self._bind = bind
        self._bound: tuple[Line | None, Any] = (None, None)

    def on(self, line: Line) -> Any:
        """The multi-callable of ``line``."""
        bound, method = self._bound
        if bound is not line:
            method = self._bind(line.channel)
            self._bound = (line, method)
        return method


class Methods:
    """How generated stubs ask a channel for its methods, each of the class that ``_kinds`` says."""

    _kinds: ClassVar[Mapping[str, type[BoundMethod]]]

    def unary_unary(self, *details: Any, **more: Any) -> Any:
        return self._method("unary_unary", details, more)

    def unary_stream(self, *details: Any, **more: Any) -> Any:
        return self._method("unary_stream", details, more)

    def stream_unary(self, *details: Any, **more: Any) -> Any:
        return self._method("stream_unary", details, more)

    def stream_stream(self, *details: Any, **more: Any) -> Any:
        return self._method("stream_stream", details, more)

    def _method(self, kind: str, details: tuple[Any, ...], more: Mapping[str, Any]) -> BoundMethod:
        return self._kinds[kind](self, lambda channel: getattr(channel, kind)(*details, **more))


def _signature(files: Sequence[str | os.PathLike[str]]) -> _Signature:
    return tuple(_stat(path) for path in files)


def _stat(path: str | os.PathLike[str]) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows the links that Kubernetes swaps
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
