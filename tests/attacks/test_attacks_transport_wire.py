"""Transport, by means no gRPC client uses: old TLS, silent sockets, readable key files."""

from __future__ import annotations

import json
import socket
import ssl
import time
import warnings
from pathlib import Path
from typing import Any

import grpc
import pytest

from secure_server.limits import HANDSHAKE_TIMEOUT
from support.house import House, call
from support.raw import dial, frame, raw_client, tls_context
from support.running import Installation
from support.second import second_server

OPEN_METHOD = "/secure_api.tokens.v1.TokenService/GetKeySet"


def exactly(house: House, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client's context that can speak one version of TLS."""
    context = tls_context(house.authority.certificate_pem, house.admin.issued)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    if version < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL itself would not even ask
    return context


def client_hello(context: ssl.SSLContext) -> bytes:
    """The first bytes that such a client sends."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("version", "answered"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
    ],
)
@pytest.mark.parametrize("minimum", ["1.2", "1.3"])
def test_T20_TLS_below_1_2_is_refused_in_the_handshake_whatever_the_minimum(
    house: House, minimum: str, version: ssl.TLSVersion, answered: bool
) -> None:
    """The connection is closed at the first message; what TLS 1.2 gets is a handshake record."""
    hello = client_hello(exactly(house, version))
    assert hello[9:11] == version.to_bytes(2, "big")  # the version that it offers
    with (
        second_server(house, tls={"minimum_version": minimum}) as server,
        dial(server.address, 8) as plain,
    ):
        plain.sendall(hello)
        first = plain.recv(1)
    assert (first == b"\x16") is answered
    assert first in {b"\x16", b"\x15", b""}  # handshake, alert, closed


@pytest.mark.parametrize(
    ("minimum", "version", "code"),
    [
        ("1.3", ssl.TLSVersion.TLSv1_2, grpc.StatusCode.UNAUTHENTICATED),
        ("1.3", ssl.TLSVersion.TLSv1_3, grpc.StatusCode.OK),
        ("1.2", ssl.TLSVersion.TLSv1_2, grpc.StatusCode.OK),
        ("1.2", ssl.TLSVersion.TLSv1_3, grpc.StatusCode.OK),
    ],
)
def test_T20_TLS_1_2_is_served_only_where_it_is_configured(
    house: House,
    log: list[dict[str, Any]],
    minimum: str,
    version: ssl.TLSVersion,
    code: grpc.StatusCode,
) -> None:
    with (
        second_server(house, tls={"minimum_version": minimum}) as server,
        raw_client(server.address, exactly(house, version)) as client,
    ):
        reply = client.call(OPEN_METHOD)
    assert reply.code is code
    refusals = [line["reason"] for line in log if line["event"] == "call refused"]
    assert refusals == ([] if code is grpc.StatusCode.OK else ["tls_version"])


def _says_nothing(house: House) -> socket.socket:
    return dial(house.address, 5)


def _stops_within_the_client_hello(house: House) -> socket.socket:
    plain = dial(house.address, 5)
    plain.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40))
    return plain


def _finishes_TLS_only(house: House) -> socket.socket:
    context = tls_context(house.authority.certificate_pem, house.admin.issued)
    return context.wrap_socket(dial(house.address, 5), server_hostname="localhost")


def _stops_within_the_preface(house: House) -> socket.socket:
    secured = _finishes_TLS_only(house)
    secured.sendall(b"PRI * HTTP/2.0\r\n")
    return secured


def _sends_no_settings_after_the_preface(house: House) -> socket.socket:
    secured = _finishes_TLS_only(house)
    secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(0x4)[:4])
    return secured


def test_T24_sockets_that_finish_no_handshake_or_no_preface_are_closed_while_others_are_served(
    house: House,
) -> None:
    """Within ten seconds, for all kinds of silence at once."""
    assert HANDSHAKE_TIMEOUT == 10.0
    begin = time.monotonic()
    silent = {
        open_one.__name__: open_one(house)
        for open_one in (
            _says_nothing,
            _stops_within_the_client_hello,
            _finishes_TLS_only,
            _stops_within_the_preface,
            _sends_no_settings_after_the_preface,
        )
    }
    try:
        for _ in range(3):
            with house_channel(house) as channel:
                assert call(channel, method=OPEN_METHOD, request=b"").served
        took = {name: _closed_after(one, begin) for name, one in silent.items()}
    finally:
        for one in silent.values():
            one.close()
    # Not at once either: the timer did it, and no error in what this test sends.
    assert all(HANDSHAKE_TIMEOUT - 1 < seconds < HANDSHAKE_TIMEOUT + 3 for seconds in took.values())


def house_channel(house: House) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        house.authority.certificate_pem,
        house.admin.issued.private_key_pem,
        house.admin.issued.certificate_pem,
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(house.address, credentials, options)


def _closed_after(connection: socket.socket, begin: float) -> float:
    """Read until the server closes; what it sends before (its own SETTINGS) does not matter."""
    connection.settimeout(HANDSHAKE_TIMEOUT + 5)
    try:
        while connection.recv(65536):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return time.monotonic() - begin


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_T22_a_private_key_that_others_may_read_refuses_to_start(tmp_path: Path, mode: int) -> None:
    installation = Installation(tmp_path)
    key = tmp_path / "certs" / "server.key"
    key.chmod(mode)
    server = installation.spawn()
    assert server.process.wait(60) == 1
    said = [line for line in server.log.splitlines() if str(key) in line]
    assert len(said) == 1, server.log
    assert f"is a private key open to group or others (mode {mode:04o})" in said[0]
    assert "chmod 600" in said[0]
    assert "Traceback" not in server.log
    assert not server.ready_file.exists()


def test_T22_a_flag_allows_a_key_that_others_may_read_and_a_readable_CA_key_warns_at_every_start(
    tmp_path: Path,
) -> None:
    installation = Installation(tmp_path, settings="[tls]\nallow_readable_private_key = true\n")
    tmp_path.joinpath("certs", "server.key").chmod(0o644)
    for _ in range(2):
        server = installation.start()
        try:
            lines = [json.loads(line) for line in server.log.splitlines()]
        finally:
            assert server.stop() == 0
        warned = [line for line in lines if line["level"] == "warning"]
        assert [line["file"] for line in warned] == [str(tmp_path / "certs" / "ca.key")]
        assert "can read the private key of its certificate authority" in warned[0]["event"]


def test_T22_no_CA_key_no_warning(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    tmp_path.joinpath("certs", "ca.key").rename(tmp_path / "elsewhere.key")
    server = installation.start()
    assert server.stop() == 0
    assert "warning" not in server.log
