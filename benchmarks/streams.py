"""``python -m benchmarks.streams``: sessions are revoked under a thousand open streams.

All callers are in this process, on asyncio; the servers are others, as their users start them.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from benchmarks.crowd import STREAMS_A_CLIENT, STREAMS_A_SESSION, Crowd, Figures
from tests.support.running import ClientFiles, Running, running_server

STREAMS = 1000
ROUNDS = 20

GOAL = 1.0
"""Seconds from a revocation to the end of 99 of 100 of its streams."""

MUST_BE_NOUGHT = ("wrong_streams_ended", "streams_not_ended", "streams_that_missed_messages")

_SETTINGS = """
[tokens]
access_token_lifetime = 3600
"""


@contextmanager
def _servers(count: int, streams: int) -> Iterator[tuple[Running, list[str]]]:
    """So many server processes on one store, and their addresses."""
    # A stream that has ended may keep its thread for a second.
    threads = {"SECURE_SERVER_SERVER__STREAM_THREADS": str(streams + 10 * STREAMS_A_SESSION)}
    with (
        tempfile.TemporaryDirectory(prefix="streams-") as folder,
        running_server(Path(folder), settings=_SETTINGS, environment=threads) as running,
        ExitStack() as stack,
    ):
        addresses = [running.address]
        for _ in range(count - 1):
            server = running.installation.start()
            stack.callback(server.stop)
            addresses.append(server.address)
        yield running, addresses


async def _run(
    files: list[ClientFiles], addresses: list[str], operator: str, streams: int, rounds: int
) -> Figures:
    channels = [[_channel(client, address) for client in files] for address in addresses]
    try:
        return await Crowd(channels, operator, streams).run(rounds)
    finally:
        for channel in chain.from_iterable(channels):
            await channel.close()


def measure(runner: asyncio.Runner, *, servers: int, streams: int, rounds: int) -> dict[str, Any]:
    """Run it on so many server processes of one store, and return the figures.

    The same ``runner`` each time: grpcio serves one event loop of a process well.
    """
    with _servers(servers, streams) as (running, addresses):
        operator = running.admin_token()
        names = [f"client-{n}" for n in range(math.ceil(streams / STREAMS_A_CLIENT))]
        clients = [running.installation.client(name) for name in names]
        figures = runner.run(_run([running.admin, *clients], addresses, operator, streams, rounds))
        load = round(os.getloadavg()[0], 2)
    return {"servers": servers, "load_average": load} | figures.summary()


def _channel(files: ClientFiles, address: str) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        files.ca.read_bytes(), files.private_key.read_bytes(), files.certificate.read_bytes()
    )
    return grpc.aio.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)])


def run(*, streams: int = STREAMS, rounds: int = ROUNDS) -> dict[str, Any]:
    """Run it on one server, then on two of one store; print each, and return the worse of both."""
    runs = []
    with asyncio.Runner() as runner:
        for servers in (1, 2):
            one = measure(runner, servers=servers, streams=streams, rounds=rounds)
            runs.append(one)
            print(
                f"{streams} open streams, servers: {servers}, sessions revoked: {rounds}; "
                f"their streams ended in {one['stream_end_p50_s']} s (p50), "
                f"{one['stream_end_p99_s']} s (p99), {one['stream_end_max_s']} s (max); "
                f"{one['wrong_streams_ended']} others ended, "
                f"{one['streams_that_missed_messages']} missed messages; "
                f"load average {one['load_average']}",
                flush=True,
            )
    worse = {name: max(one[name] for one in runs) for name in runs[0] if name.endswith("_s")}
    sums = {name: sum(one[name] for one in runs) for name in MUST_BE_NOUGHT}
    return worse | sums | {"stream_runs": runs}


def is_bad(figures: dict[str, Any]) -> bool:
    """Whether it took too long, or a count of violations is not zero."""
    return figures["stream_end_p99_s"] > GOAL or any(figures[name] for name in MUST_BE_NOUGHT)


def main(
    *,
    streams: Annotated[int, typer.Option(min=STREAMS_A_SESSION, help="Open at once.")] = STREAMS,
    rounds: Annotated[int, typer.Option(min=1, help="How many sessions to revoke.")] = ROUNDS,
) -> None:
    """Revoke one session after the other while all streams get messages.

    Exits with 1 if a stream ended late, or one that should not have, or missed a message. The last
    line is JSON.
    """
    figures = run(streams=streams, rounds=rounds)
    print(json.dumps(figures))
    if is_bad(figures):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
