"""The four kinds of method of ``channel``'s channel, on the current counted channel."""

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
    def _counted(self) -> Iterator[CountedChannel]:
        counted = self._owner.counted_channel()
        try:
            yield counted
        finally:
            counted.leave()

    def _start(self, start: Callable[[Any], Any]) -> Any:
        counted = self._owner.counted_channel()
        try:
            call = start(self.on(counted))
        except BaseException:
            counted.leave()
            raise
        if not call.add_callback(counted.leave):
            counted.leave()
        return call


class UnaryUnary(_Method, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    def __call__(self, request: Any, timeout: float | None = None, *rest: Any, **more: Any) -> Any:
        return self.with_call(request, timeout, *rest, **more)[0]

    def with_call(self, request: Any, timeout: float | None = None, *rest: Any, **more: Any) -> Any:
        if timeout is None:
            timeout = self._owner.timeout
        end = time.monotonic() + timeout
        with self._counted() as counted:
            before = counted.token()
            try:
                return self.on(counted).with_call(request, timeout, *rest, **more)
            except grpc.RpcError as error:
                refusal = error
                if (refused := counted.refused_token(before, error)) is None:
                    raise
        # The token may be bound to a certificate that was replaced within the last second.
        self._owner.look_and_wait(end - time.monotonic())
        with self._counted() as counted:
            counted.refuse(refused)
            try:
                return self.on(counted).with_call(request, end - time.monotonic(), *rest, **more)
            except grpc.RpcError as error:
                if NO_TOKEN not in (error.details() or ""):
                    raise
        # There is no fresh token: report the server's first answer.
        raise refusal

    def future(self, request: Any, timeout: float | None = None, *rest: Any, **more: Any) -> Any:
        if timeout is None:
            timeout = self._owner.timeout
        return self._start(lambda method: method.future(request, timeout, *rest, **more))


class StreamUnary(_Method, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    def __call__(self, request_iterator: Any, *rest: Any, **more: Any) -> Any:
        with self._counted() as counted:
            return self.on(counted)(request_iterator, *rest, **more)

    def with_call(self, request_iterator: Any, *rest: Any, **more: Any) -> Any:
        with self._counted() as counted:
            return self.on(counted).with_call(request_iterator, *rest, **more)

    def future(self, request_iterator: Any, *rest: Any, **more: Any) -> Any:
        return self._start(lambda method: method.future(request_iterator, *rest, **more))


class UnaryStream(_Method, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    def __call__(self, request: Any, *rest: Any, **more: Any) -> Any:
        return self._start(lambda method: method(request, *rest, **more))


class StreamStream(_Method, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    def __call__(self, request_iterator: Any, *rest: Any, **more: Any) -> Any:
        return self._start(lambda method: method(request_iterator, *rest, **more))
