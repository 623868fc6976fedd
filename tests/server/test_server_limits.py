"""The channel arguments: spelled as gRPC spells them, and each with its effect where it shows."""

from __future__ import annotations

import threading
import time

import grpc
import pytest
from grpc._cython import cygrpc
from h2.events import ConnectionTerminated, RemoteSettingsChanged
from h2.settings import SettingCodes

from secure_server.guard.listener.sockets import ListenError
from secure_server.limits import HANDSHAKE_TIMEOUT, Limits, channel_arguments
from support.door import wait_until
from support.house import House, call
from support.raw import PING, frame, raw_client, tls_context
from support.second import connected, second_server

OPEN_METHOD = "/secure_api.tokens.v1.TokenService/GetKeySet"


@pytest.fixture(scope="module")
def library() -> bytes:
    from pathlib import Path

    return Path(cygrpc.__file__).read_bytes()


@pytest.mark.parametrize("name", [name for name, _ in channel_arguments(Limits())])
def test_gRPC_knows_each_channel_argument(library: bytes, name: str) -> None:
    """It ignores unknown ones, so a slip of the pen would be no limit. Its strings end with NUL."""
    assert name.encode() + b"\0" in library
    assert name.encode() + b"x\0" not in library


def test_no_channel_argument_is_set_twice() -> None:
    names = [name for name, _ in channel_arguments(Limits())]
    assert len(names) == len(set(names))


def test_a_second_server_on_the_same_port_fails_with_a_sentence(house: House) -> None:
    """grpc.so_reuseport."""
    with (
        pytest.raises(
            ListenError, match=rf"^Cannot listen on {house.address}: the port is taken, .+\.$"
        ),
        second_server(house, server={"listen": house.address}),
    ):
        pass
    assert call(house.channel(house.admin), method=OPEN_METHOD, request=b"").served


def test_the_http2_settings_say_what_one_connection_may(house: House) -> None:
    """grpc.max_concurrent_streams and grpc.max_metadata_size, as the server announces them."""
    context = tls_context(house.authority.certificate_pem, house.admin.issued)
    wanted = dict(channel_arguments(Limits()))
    with raw_client(house.address, context) as client:
        changed = client.wait_for(RemoteSettingsChanged).changed_settings
    streams = changed[SettingCodes.MAX_CONCURRENT_STREAMS].new_value
    metadata = changed[SettingCodes.MAX_HEADER_LIST_SIZE].new_value
    assert streams == wanted["grpc.max_concurrent_streams"]
    assert metadata == wanted["grpc.max_metadata_size"] == 16 * 1024


def test_a_client_that_pings_too_often_gets_enhance_your_calm_and_is_disconnected(
    house: House,
) -> None:
    """grpc.http2.min_ping_interval_without_data_ms (gRFC A8)."""
    context = tls_context(house.authority.certificate_pem, house.admin.issued)
    with raw_client(house.address, context) as client:
        client.send(frame(PING, payload=bytes(8)) * 10)
        goodbye = client.wait_for(ConnectionTerminated)
    assert goodbye.error_code == 11  # ENHANCE_YOUR_CALM
    assert goodbye.additional_data == b"too_many_pings"


def test_the_message_limit_is_the_configured_one(house: House) -> None:
    """grpc.max_receive_message_length."""
    with (
        second_server(house, server={"max_message_bytes": 2048}) as server,
        connected(house, server, house.admin) as channel,
    ):
        codes = [
            # An unknown field, which parses and means nothing.
            call(channel, method=OPEN_METHOD, request=b"\x7a\xff\x0f" + bytes(2047)).code,
            call(channel, method=OPEN_METHOD, request=b"\x7a\xfd\x0f" + bytes(2045)).code,
        ]
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK]


def test_streams_beyond_the_stream_threads_are_refused_at_once(house: House) -> None:
    never = threading.Event()
    with (
        second_server(house, server={"stream_threads": 1}) as server,
        connected(house, server, house.admin) as channel,
    ):
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        metadata = (("authorization", f"Bearer {house.forge.token(house.admin.thumbprint)}"),)
        introspect = channel.stream_stream("/secure_api.tokens.v1.TokenService/Introspect")

        def silent():  # type: ignore[no-untyped-def]
            never.wait()
            yield b""

        first = introspect(silent(), metadata=metadata, timeout=60)
        try:
            wait_until(lambda: len(server._guard.streams) == 1)
            begin = time.monotonic()
            with pytest.raises(grpc.RpcError) as refused:
                next(watch(b"", timeout=20))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert time.monotonic() - begin < 5
            assert call(channel, method=OPEN_METHOD, request=b"").served
        finally:
            never.set()
            first.cancel()


def test_a_unary_call_that_sends_no_message_is_ended(house: House) -> None:
    """After ``Limits.message_timeout``, and not before."""
    assert Limits().message_timeout == HANDSHAKE_TIMEOUT == 10.0
    context = tls_context(house.authority.certificate_pem, house.admin.issued)
    with raw_client(house.address, context) as client:
        begin = time.monotonic()
        reply = client.reply(client.begin(OPEN_METHOD))
    assert HANDSHAKE_TIMEOUT - 0.5 < time.monotonic() - begin < HANDSHAKE_TIMEOUT + 3
    assert reply.code is not grpc.StatusCode.OK
