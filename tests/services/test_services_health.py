"""The health service: a watcher that reads no message blocks no other caller, and no stop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthStub
from h2.settings import SettingCodes

from support.door import open_door, wait_until
from support.house import House
from support.raw import RawClient, context_from_files
from support.running import running_server

WATCH = "/grpc.health.v1.Health/Watch"
SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING

ONE_MESSAGE = 5 + len(pb.HealthCheckResponse(status=SERVING).SerializeToString())
"""Bytes of one on the wire."""


def test_it_knows_the_services_and_the_server_as_a_whole(house: House) -> None:
    stub = HealthStub(house.channel(house.admin))
    for name in ("", "secure_api.users.v1.UserService", "secure_api.tokens.v1.TokenService"):
        request = pb.HealthCheckRequest(service=name)
        assert stub.Check(request, timeout=10).status == SERVING
        watch = stub.Watch(request, timeout=10)
        assert next(watch).status == SERVING
        watch.cancel()
    request = pb.HealthCheckRequest(service="another")
    with pytest.raises(grpc.RpcError) as unknown:
        stub.Check(request, timeout=10)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(request, timeout=10)
    assert next(watch).status == pb.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_O4_watchers_who_take_no_message_hold_up_neither_others_nor_the_end(
    tmp_path: Path,
) -> None:
    """The watchers' flow control windows have room for almost nothing."""
    with running_server(tmp_path) as running:
        files = running.admin
        context = context_from_files(files.certificate, files.private_key, files.ca)
        silent = [RawClient(running.address, context, timeout=60) for _ in range(2)]
        # The first takes nothing at all, the second one message: what comes next waits for ever.
        for client, window in zip(silent, (0, ONE_MESSAGE), strict=True):
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
            client.flush()
            for _ in range(12):
                client.message(client.begin(WATCH))
        with files.channel(running.address) as channel:
            stub = HealthStub(channel)
            watch = stub.Watch(pb.HealthCheckRequest(), timeout=30)
            assert next(watch).status == SERVING
            for _ in range(20):
                assert stub.Check(pb.HealthCheckRequest(), timeout=5).status == SERVING
            begun = time.monotonic()
            assert running.server.stop(timeout=30) == 0
            assert time.monotonic() - begun < 5 + 3  # the grace, and a moment
            assert next(watch).status == NOT_SERVING
            with pytest.raises(grpc.RpcError) as ended:
                next(watch)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        for client in silent:
            client.close()


@pytest.mark.parametrize("hands_over", [True, False])
def test_it_works_behind_an_interceptor_that_hands_over_no_sender(
    tmp_path: Path, hands_over: bool
) -> None:
    from secure_server.services.health import Health

    class Wrapping(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            handler = continuation(details)
            if hands_over or not handler.response_streaming:
                return handler
            inner = handler.unary_stream
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: inner(request, context),  # noqa: PLW0108 - loses the mark
                handler.request_deserializer,
                handler.response_serializer,
            )

    servicer = Health(["a"])

    def more(server: Any) -> None:
        from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

        add_HealthServicer_to_server(servicer, server)

    policy = '{"name": "open", "allow_rules": [{"name": "all"}]}'
    with open_door(tmp_path, policy=policy, more=more, inner=(Wrapping(),), streams=2) as door:
        stub = HealthStub(door.channel())
        for _ in range(5):  # more often than there are places for streams
            watch = stub.Watch(pb.HealthCheckRequest(service="a"), timeout=30)
            assert next(watch).status == SERVING
            watch.cancel()
            wait_until(lambda: door.stack.open_streams == 0 and not servicer._watchers)
        watch = stub.Watch(pb.HealthCheckRequest(service="a"), timeout=30)
        assert next(watch).status == SERVING
        servicer.enter_shutdown()
        assert next(watch).status == NOT_SERVING
        watch.cancel()
