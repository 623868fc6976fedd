"""A run: all servers up, then round after round through all points."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

import grpc

from benchmarks.http2 import Client, Tally
from benchmarks.points import Load, Plan, Point
from benchmarks.process import Process
from benchmarks.servers import STREAM, UNARY, Server, seen_authorization

PAYLOAD = bytes(range(64))
IN_FLIGHT = 32

_PROBE_TIMEOUT = 30.0  # seconds

Figures = dict[str, list[float]]
"""Server CPU in microseconds per call, by the name of the point, one for each round."""


class MeasurementError(Exception):
    """A server did not answer as expected, so its figure would mean nothing."""


def measure(
    plan: Plan,
    folder: Path,
    *,
    calls: int,
    rounds: int,
    core: int | None,
    progress: Callable[[str], None],
) -> Figures:
    """Take each point once a round, all servers on one ``core``.

    So the points of a ratio are measured within seconds of each other, under the same load of the
    machine; every second round goes backwards, so that a drift favours none.

    Raises ``MeasurementError``.
    """
    figures: Figures = {point.name: [] for point in plan.points}
    with ExitStack() as stack:
        processes: dict[Server, Process] = {}
        for point in plan.points:
            if point.server not in processes:
                processes[point.server] = stack.enter_context(Process(point.server, folder, core))
        progress(f"Starting {len(processes)} servers ...")
        for process in processes.values():
            process.wait_until_ready()
        for point in plan.points:
            _probe(point, processes[point.server].port, folder)
        for number in range(1, rounds + 1):
            progress(f"Round {number} of {rounds} ...")
            for point in plan.points if number % 2 else reversed(plan.points):
                figures[point.name].append(
                    _take(point, processes[point.server], folder, calls) * 1e6
                )
        for point in plan.points:
            _probe(point, processes[point.server].port, folder)
    return figures


def _take(point: Point, server: Process, folder: Path, calls: int) -> float:
    """Return the server's CPU seconds per call."""
    client = Client(
        server.port,
        folder=folder,
        method=STREAM if point.load.streaming else UNARY,
        payload=PAYLOAD,
        authorizations=_authorizations(point.load),
    )
    go = client.stream if point.load.streaming else client.unary
    try:
        # The handshake and the first calls, which start threads and fill caches, do not count.
        go(max(IN_FLIGHT, calls // 10), IN_FLIGHT)
        before = server.cpu_seconds()
        tally = go(calls, IN_FLIGHT)
        used = server.cpu_seconds() - before
    finally:
        client.close()
    if tally != (Tally(calls, 0) if point.expected == "OK" else Tally(0, calls)):
        raise MeasurementError(f"{point.name}: {tally}, and {point.expected} was expected.")
    return used / calls


def _authorizations(load: Load) -> Iterator[str | None]:
    if not load.seen:
        return repeat(load.authorization)
    serials = list(range(load.seen))
    # An order that a processor's cache cannot guess; the same in every run.
    random.Random(load.seen).shuffle(serials)
    return _cycle(load.authorization or "", serials)


def _cycle(token: str, serials: list[int]) -> Iterator[str]:
    while True:
        for serial in serials:
            yield seen_authorization(token, serial)


def _probe(point: Point, port: int, folder: Path) -> None:
    """Make the call once with grpcio, and check its status.

    The client that makes the load counts answers without reading them.
    """
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem"))
    )
    authorization = next(_authorizations(point.load))
    metadata = () if authorization is None else (("authorization", authorization),)
    options: dict[str, Any] = {"metadata": metadata, "timeout": _PROBE_TIMEOUT}
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        unary: Any = channel.unary_unary(UNARY)
        stream: Any = channel.stream_stream(STREAM)
        try:
            if point.load.streaming:
                answer = next(stream(iter([PAYLOAD]), **options))
            else:
                answer = unary(PAYLOAD, **options)
            code = "OK" if answer == PAYLOAD else "another answer"
        except grpc.RpcError as error:
            code = error.code().name
    if code != point.expected:
        raise MeasurementError(f"{point.name}: {code}, and {point.expected} was expected.")
