"""The four kinds of method on a channel whose line may be replaced: see ``channel``."""

# The classes of grpc cannot be subscripted at run time: hence each `type: ignore[type-arg]`.

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from secure_client._credentials import NO_TOKEN
from secure_client._rotation import RotatingMethod

if TYPE_CHECKING:
    from secure_client._rotation import CountedChannel
    from secure_client.channel import RotatingChannel


class _Method(RotatingMethod):
    _owner: RotatingChannel

    @contextmanager
    def _line(self) -> Iterator[CountedChannel]:
        line = self._owner.line()
        try:
            yield line
        finally:
            line.leave()

    def _start(self, start: Callable[[Any], Any]) -> Any:
        line = self._owner.line()
        try:
            call = start(self.on(line))
        except BaseException:
            line.leave()
            raise
        if not call.add_callback(line.leave):
            line.leave()
        return call


class UnaryUnary(_Method, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    def __call__(self, request: Any, timeout: float | None = None, *rest: Any, **more: Any) -> Any:
        return self.with_call(request, timeout, *rest, **more)[0]

    def with_call(self, request: Any, timeout: float | None = None, *rest: Any, **more: Any) -> Any:
        if timeout is None:
            timeout = self._owner.timeout
        end = time.monotonic() + timeout
        with self._line() as line:
            before = line.token()
            try:
                return self.on(line).with_call(request, timeout, *rest, **more)
            except grpc.RpcError as error:
                refusal = error
                if (refused := line.refused_token(before, error)) is None:
                    raise
        # The token may be bound to a certificate that has been replaced within this second.
        self._owner.look_and_wait(end - time.monotonic())
        with self._line() as line:
            line.refuse(refused)
            try:
                return self.on(line).with_call(request, end - time.monotonic(), *rest, **more)
            except grpc.RpcError as error:
                if NO_TOKEN not in (error.details() or ""):
                    raise
        # There is no fresh token: what the server said first is what is wrong.
        raise refusal

    def future(self, request: Any, timeout: float | None = None, *rest: Any, **more: Any) -> Any:
        if timeout is None:
            timeout = self._owner.timeout
        return self._start(lambda method: method.future(request, timeout, *rest, **more))


class StreamUnary(_Method, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    def __call__(self, request_iterator: Any, *rest: Any, **more: Any) -> Any:
        with self._line() as line:
            return self.on(line)(request_iterator, *rest, **more)

    def with_call(self, request_iterator: Any, *rest: Any, **more: Any) -> Any:
        with self._line() as line:
            return self.on(line).with_call(request_iterator, *rest, **more)

    def future(self, request_iterator: Any, *rest: Any, **more: Any) -> Any:
        return self._start(lambda method: method.future(request_iterator, *rest, **more))


class UnaryStream(_Method, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    def __call__(self, request: Any, *rest: Any, **more: Any) -> Any:
        return self._start(lambda method: method(request, *rest, **more))


class StreamStream(_Method, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    def __call__(self, request_iterator: Any, *rest: Any, **more: Any) -> Any:
        return self._start(lambda method: method(request_iterator, *rest, **more))
