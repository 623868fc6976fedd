"""One port, served by one server after the other: what is left of the one before, and when."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

import grpc
import pytest

from secure_server.guard.listener import rotation as module
from secure_server.guard.listener.rotation import Built, ListenerRotation
from secure_server.guard.listener.sockets import ListenError, check_free
from secure_server.guard.streams.pool import ServerStreams, StreamPool
from secure_tls.authority import Authority
from support.door import wait_until

METHOD = "/a.Service/Number"
RETIRE = 3600.0


class Port:
    """A rotation of servers that say which one they are, by a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0
        self.streams = StreamPool(4)
        self.forgotten = 0
        self.built = 0
        self.groups: list[ServerStreams] = []
        self.is_broken = False
        self._threads = ThreadPoolExecutor(4)
        self._authority = Authority.create("example.org")
        self.rotation = ListenerRotation(
            self._build,
            self._credentials,
            "127.0.0.1:0",
            retire=RETIRE,
            grace=5,
            forget=self._forget,
            clock=self._clock,
        )

    def _clock(self) -> float:
        self.looks += 1
        return self.now

    def _forget(self, group: Any) -> None:
        self.forgotten += 1
        self.streams.forget(group)

    def _build(self) -> Built:
        if self.is_broken:
            return Built(Unbindable(), self.streams.group())  # type: ignore[arg-type]
        server = grpc.server(self._threads, options=[("grpc.so_reuseport", 1)])
        self.built += 1
        number = str(self.built).encode()
        says = grpc.unary_unary_rpc_method_handler(lambda _request, _context: number)
        handler = grpc.method_handlers_generic_handler("a.Service", {"Number": says})
        server.add_generic_rpc_handlers((handler,))
        self.groups.append(self.streams.group())
        return Built(server, self.groups[-1])

    def _credentials(self) -> grpc.ServerCredentials:
        leaf = self._authority.issue_server("server", [], [ip_address("127.0.0.1")])
        return grpc.ssl_server_credentials([(leaf.private_key_pem, leaf.certificate_pem)])

    def channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self._authority.certificate_pem)
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(self.rotation.address, credentials, options)

    def look(self, now: float) -> None:
        """Move the clock; return when the thread that ends servers has looked at it since."""
        self.now = now
        before = self.looks
        wait_until(lambda: self.looks >= before + 4)

    def close(self) -> None:
        self.rotation.stop()
        self.streams.close()
        self._threads.shutdown()


class Served:
    """A stream; one that does not block stays open though no thread serves it."""

    def __init__(self, *, non_blocking: bool) -> None:
        self.non_blocking = non_blocking
        self.is_ended = False

    def serve(self) -> None: ...

    def end(self) -> None:
        self.is_ended = True


class Unbindable:
    def add_secure_port(self, _address: str, _credentials: object) -> int:
        raise RuntimeError("Failed to bind to address")


def server_of(channel: grpc.Channel) -> int:
    """Return the number of the server that a connection leads to."""
    return int(channel.unary_unary(METHOD)(b"", timeout=10, wait_for_ready=True))


def is_free(address: str) -> bool:
    try:
        check_free(address, "listen")
    except ListenError:
        return False
    return True


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port()
    port.rotation.start()
    try:
        yield port
    finally:
        port.close()


def test_after_a_stop_no_server_is_bound_any_more(port: Port) -> None:
    """A new certificate may come while the server stops."""
    port.rotation.stop()
    wait_until(lambda: is_free(port.rotation.address))
    port.rotation.rotate()
    assert is_free(port.rotation.address)
    assert port.rotation.count == 1


def test_a_stop_is_one_of_all_servers(port: Port) -> None:
    with port.channel() as before:
        assert server_of(before) == 1
        port.rotation.rotate()
        assert server_of(before) == 1
        port.rotation.stop()
        with pytest.raises(grpc.RpcError) as ended:
            before.unary_unary(METHOD)(b"", timeout=10)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_stop_ends_at_once_the_streams_that_would_never_end_and_no_others(port: Port) -> None:
    streams = [Served(non_blocking=True), Served(non_blocking=False)]
    for stream in streams:
        assert port.groups[0].try_serve(stream, lambda _closed: True)
    port.rotation.stop()
    assert [stream.is_ended for stream in streams] == [True, False]


def test_new_calls_are_refused_before_any_stream_is_told_to_connect_again(port: Port) -> None:
    codes: list[grpc.StatusCode] = []

    def connect() -> None:
        with port.channel() as fresh, pytest.raises(grpc.RpcError) as refused:
            fresh.unary_unary(METHOD)(b"", timeout=5)
        codes.append(refused.value.code())

    class Told(Served):
        def end(self) -> None:
            super().end()
            connect()

    told = Told(non_blocking=True)
    assert port.groups[0].try_serve(told, lambda _closed: True)
    port.rotation.stop(refusing=connect)
    assert told.is_ended
    assert codes == [grpc.StatusCode.UNAVAILABLE] * 2


def test_a_server_that_takes_no_new_connection_keeps_its_own_until_it_retires(port: Port) -> None:
    with port.channel() as before:
        assert server_of(before) == 1
        port.rotation.rotate()
        port.now = RETIRE - 0.01
        looks = port.looks
        port.rotation.rotate()  # which has the clock looked at
        wait_until(lambda: port.looks >= looks + 3)
        assert (port.rotation.retiring, server_of(before)) == (2, 1)
        with port.channel() as fresh:
            assert server_of(fresh) == 3
        port.now = RETIRE
        port.rotation.rotate()
        wait_until(lambda: port.rotation.retiring == 2)
        wait_until(lambda: port.forgotten == 1)
        assert server_of(before) == 4


def test_a_listener_that_cannot_be_closed_alone_gets_an_overlap(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server is stopped after that, and not after ``retire``: the kernel goes on handing it
    connections.
    """
    monkeypatch.setattr(module, "stop_listening", lambda _inodes: False)
    with port.channel() as before:
        assert server_of(before) == 1
        port.rotation.rotate()
        port.look(module._OVERLAP - 0.01)
        assert (port.rotation.retiring, server_of(before)) == (1, 1)
        port.now = module._OVERLAP
        wait_until(lambda: port.rotation.retiring == 0)
        wait_until(lambda: port.forgotten == 1)
        assert server_of(before) == 2


def test_a_server_that_cannot_be_bound_leaves_the_one_before_and_nothing_of_its_own(
    port: Port, log: list[dict[str, Any]]
) -> None:
    port.is_broken = True
    port.rotation.rotate()
    assert (port.rotation.count, port.rotation.retiring, port.forgotten) == (1, 0, 1)
    assert [line["event"] for line in log] == [
        "the new certificate cannot be served, the old one stays"
    ]
    with port.channel() as fresh:
        assert server_of(fresh) == 1
