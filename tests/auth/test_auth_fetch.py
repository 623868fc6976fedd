"""Fetching from an issuer: its connections are kept, and its answers may not trickle."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from secure_server.auth import fetch
from secure_server.auth.fetch import Fetcher, FetchError
from secure_server.testing import running_provider
from secure_server.testing.provider import KEYS
from secure_tls.authority import Authority
from support.door import wait_until


@pytest.fixture
def trickling(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server whose answer has a thousand bytes and comes byte by byte; its URL and its CA."""
    authority = Authority.create("example.org")
    leaf = authority.issue_server("provider", ["localhost"], [])
    ca, pair = tmp_path / "ca.pem", tmp_path / "pair.pem"
    ca.write_bytes(authority.certificate_pem)
    pair.write_bytes(leaf.certificate_pem + leaf.private_key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # no client connected
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                while True:
                    secure.sendall(b" ")
                    time.sleep(0.02)
            except OSError:
                pass  # hung up on, as it should be

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"https://localhost:{listener.getsockname()[1]}/", ca
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def test_an_answer_that_trickles_in_is_given_up_in_time(
    trickling: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ca = trickling
    monkeypatch.setattr(fetch, "TIMEOUT", 0.4)
    fetcher = Fetcher(ca=ca, allow_private_addresses=True)
    with pytest.raises(FetchError, match=r"takes longer than 0\.4 seconds"):
        fetcher.get(url)
    fetcher.close()


def test_a_connection_that_the_issuer_has_closed_is_reopened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The server closes a connection that was idle for so long, without telling the client before.
    monkeypatch.setattr("secure_server.testing.provider._Handler.timeout", 0.05)
    with running_provider() as provider:
        fetcher = Fetcher(ca=provider.ca_file, allow_private_addresses=True)
        for opened in (1, 2, 3):
            assert b"keys" in fetcher.get(provider.url + KEYS)
            assert provider.connections == opened
            wait_until(lambda: not any("process_request" in t.name for t in threading.enumerate()))
        fetcher.close()


def test_connections_are_used_again_and_as_many_as_are_needed() -> None:
    with running_provider() as provider:
        fetcher = Fetcher(ca=provider.ca_file, allow_private_addresses=True)
        provider.delay = 0.2
        with ThreadPoolExecutor(8) as threads:
            for _ in range(3):
                list(threads.map(fetcher.get, [provider.url + KEYS] * 8))
        assert len(provider.requests) == 24
        assert provider.connections <= 8
        fetcher.close()


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"nonsense", "Főtanúsítvány".encode(), b"\x30\x82\xff"]
)
def test_a_bundle_without_a_certificate_is_refused_and_stands_for_no_other(
    tmp_path: Path, text: bytes
) -> None:
    """Emptied, it must not come to the authorities of the system."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(text)
    with pytest.raises(FetchError, match=r"ca\.pem: cannot be used as a CA bundle: "):
        Fetcher(ca=ca)


def test_a_bundle_that_is_emptied_leaves_the_last_good_one() -> None:
    with running_provider() as provider:
        fetcher = Fetcher(ca=provider.ca_file, allow_private_addresses=True)
        provider.ca_file.write_bytes(b"")
        assert fetcher._ca is not None
        fetcher._ca.look()
        assert "it is empty" in fetcher._ca.status.reason
        assert b"keys" in fetcher.get(provider.url + KEYS)
        fetcher.close()


def test_a_bundle_may_have_comments_in_any_language() -> None:
    with running_provider() as provider:
        pem = provider.ca_file.read_bytes()
        provider.ca_file.write_bytes("# Főtanúsítvány\n".encode() + pem)
        fetcher = Fetcher(ca=provider.ca_file, allow_private_addresses=True)
        assert b"keys" in fetcher.get(provider.url + KEYS)
        fetcher.close()
