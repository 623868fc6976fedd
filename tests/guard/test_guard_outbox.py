"""A servicer that calls ``send`` is not blocked by a caller who reads nothing."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthStub, add_HealthServicer_to_server
from h2.settings import SettingCodes

from secure_server.guard.streams.outbox import MOST_UNSENT, Outbox
from support.door import open_door, wait_until
from support.raw import RawClient, tls_context

WATCH = "/grpc.health.v1.Health/Watch"
OPEN = '{"name": "open", "allow_rules": [{"name": "all"}]}'
SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING


def test_M9_grpcios_own_health_service_is_not_blocked_by_watchers_who_read_nothing(
    tmp_path: Path,
) -> None:
    """It sends while it holds the lock that ``Check`` and the graceful shutdown need."""
    servicer = health.HealthServicer()
    servicer.set("", SERVING)
    more = lambda server: add_HealthServicer_to_server(servicer, server)  # noqa: E731
    with open_door(tmp_path, policy=OPEN, more=more) as door, ExitStack() as stack:
        context = tls_context(door.authority.certificate_pem, door.client)
        silent = RawClient(f"127.0.0.1:{door.port}", context, timeout=60)
        stack.callback(silent.close)
        silent.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        silent.flush()
        for _ in range(12):
            silent.message(silent.begin(WATCH))
        stub = HealthStub(door.channel())
        watch = stub.Watch(pb.HealthCheckRequest(), timeout=60)
        assert next(watch).status == SERVING
        wait_until(lambda: len(door.guard.watch) == 13)
        for status in (NOT_SERVING, SERVING) * 20:
            servicer.set("", status)
            assert stub.Check(pb.HealthCheckRequest(), timeout=5).status == status
            assert next(watch).status == status
        over = threading.Thread(target=servicer.enter_graceful_shutdown, daemon=True)
        over.start()
        over.join(5)
        assert not over.is_alive()
        assert next(watch).status == NOT_SERVING


def test_a_caller_who_reads_nothing_is_ended_when_too_many_messages_wait(tmp_path: Path) -> None:
    sent = threading.Semaphore(0)

    def behavior(_request: bytes, _context: Any, send: Any) -> None:
        for _ in range(2 * MOST_UNSENT):
            send(b"m" * 100_000)
            sent.release()

    behavior.experimental_non_blocking = True  # type: ignore[attr-defined]
    behavior.experimental_thread_pool = None  # type: ignore[attr-defined]
    method = "/probe.Probe/Sends"
    with open_door(tmp_path, policy=OPEN) as door:
        door.probe.others[method] = grpc.unary_stream_rpc_method_handler(behavior)
        stream = door.channel().unary_stream(method)(b"!", timeout=60)
        wait_until(lambda: (method, "CANCELLED") in door.ended)
        assert len(door.guard.watch) == 0
        stream.cancel()
        assert all(sent.acquire(timeout=10) for _ in range(2 * MOST_UNSENT)), "put has waited"


def test_messages_are_sent_in_order_and_one_at_a_time() -> None:
    gone: list[int] = []
    busy = threading.Lock()

    def send(number: int) -> None:
        assert busy.acquire(blocking=False)
        time.sleep(0.0001)
        gone.append(number)
        busy.release()
        if number == 50:
            raise ValueError("one that cannot be serialized")

    outbox = Outbox(send, lambda run: threading.Thread(target=run).start(), lambda: gone.append(-1))
    for number in range(200):
        outbox.put(number)
    wait_until(lambda: len(gone) == 200)
    assert gone == [*range(200)]
