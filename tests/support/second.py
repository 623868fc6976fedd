"""Another server beside a house's own: same authority and state, other settings or clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from secure_server.app.lifecycle import Server
from secure_tls.authority import Issued
from support.house import Client, House


@contextmanager
def second_server(
    house: House,
    clock: Callable[[], float] = time.time,
    **changes: dict[str, Any],
) -> Iterator[Server]:
    """Run one. ``changes`` are settings by section: ``tls={"minimum_version": "1.2"}``."""
    sections = {
        name: getattr(house.config, name).model_copy(update=values)
        for name, values in changes.items()
    }
    server = Server(house.config.model_copy(update=sections), clock=clock)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def connected(
    house: House, server: Server, client: Client | Issued, *options: tuple[str, Any]
) -> Iterator[grpc.Channel]:
    """A channel to such a server."""
    issued = client.issued if isinstance(client, Client) else client
    credentials = grpc.ssl_channel_credentials(
        house.authority.certificate_pem, issued.private_key_pem, issued.certificate_pem
    )
    with grpc.secure_channel(
        server.address, credentials, [("grpc.use_local_subchannel_pool", 1), *options]
    ) as channel:
        yield channel
