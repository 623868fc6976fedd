"""HTTP/2 by hand: a client that can do what a proper gRPC client never would."""

from __future__ import annotations

import dataclasses
import functools
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from secure_tls.authority import Issued

_CODES = {str(code.value[0]): code for code in grpc.StatusCode}

HEADERS, PRIORITY, RESET, SETTINGS, PING, CONTINUATION = 0x1, 0x2, 0x3, 0x4, 0x6, 0x9
"""Frame types (RFC 9113, section 6)."""


@dataclasses.dataclass
class Reply:
    """The answer to one call. ``code`` is None where no gRPC status came."""

    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None
    goodbye: int | None = None
    """The error code of a GOAWAY frame."""
    hung_up: bool = False

    @property
    def code(self) -> grpc.StatusCode | None:
        return _CODES.get(self.headers.get("grpc-status", ""))


def tls_context(authority_pem: bytes, issued: Issued | None) -> ssl.SSLContext:
    """A client's context with ALPN ``h2``; presents ``issued`` where there is one."""
    context = ssl.create_default_context(cadata=authority_pem.decode())
    context.set_alpn_protocols(["h2"])
    if issued is not None:
        with tempfile.TemporaryDirectory() as folder:
            pem = Path(folder, "client.pem")
            pem.touch(mode=0o600)
            pem.write_bytes(issued.certificate_pem + issued.private_key_pem)
            context.load_cert_chain(pem)
    return context


def context_from_files(certificate: Path, private_key: Path, ca: Path) -> ssl.SSLContext:
    """The same from PEM files."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate, private_key)
    return context


def dial(address: str, timeout: float) -> socket.socket:
    """Open a TCP connection to HOST:PORT."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout)


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class RawClient:
    """One connection. ``h2`` builds valid frames; ``send`` sends any bytes."""

    def __init__(self, address: str, context: ssl.SSLContext, *, timeout: float = 20.0) -> None:
        """Finish the TLS handshake and send the preface; read nothing."""
        self.deadline = time.monotonic() + timeout
        plain = dial(address, timeout)
        try:
            self.socket = context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )
        # Literal text: the encoder's Huffman coding takes seconds for a megabyte.
        self.h2.encoder.encode = functools.partial(self.h2.encoder.encode, huffman=False)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def send(self, data: bytes) -> None:
        """Send bytes without telling ``h2``."""
        self.socket.sendall(data)

    def headers(self, path: str, *extra: tuple[str, str]) -> list[tuple[str, str]]:
        return [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "raw"),
            *extra,
        ]

    def begin(self, path: str, *metadata: tuple[str, str]) -> int:
        """Send the headers of a call and leave it open. Returns the stream's number."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.headers(path, *metadata))
        self.flush()
        return stream

    def message(self, stream: int, message: bytes = b"", *, compressed: bool = False) -> None:
        """Send one message and close our side of the stream."""
        data = struct.pack(">BI", compressed, len(message)) + message
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0:
                self.receive()
                continue
            self.h2.send_data(stream, data[:room], end_stream=room >= len(data))
            data = data[room:]
            self.flush()

    def call(self, path: str, *metadata: tuple[str, str], message: bytes = b"") -> Reply:
        """Make one unary call; what the server does to it is the reply, whatever it is."""
        reply = Reply()
        try:
            stream = self.begin(path, *metadata)
            self.message(stream, message)
            return self.reply(stream)
        except (ConnectionError, ssl.SSLError):
            reply.hung_up = True
            return reply

    def receive(self) -> list[Event]:
        """Wait for bytes and return what they mean. Raises ``ConnectionError`` at their end."""
        self.socket.settimeout(max(0.001, self.deadline - time.monotonic()))
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        try:
            events: list[Any] = list(self.h2.receive_data(data))
        except ProtocolError as error:  # ``h2`` accepts no more frames after a GOAWAY
            raise ConnectionResetError(str(error)) from None
        for event in events:
            if isinstance(event, DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return events

    def reply(self, stream: int) -> Reply:
        """Wait for the end of a call."""
        reply = Reply()
        try:
            while True:
                for event in self.receive():
                    if isinstance(event, ConnectionTerminated):
                        reply.goodbye = event.error_code
                    if getattr(event, "stream_id", None) != stream:
                        continue
                    if isinstance(event, ResponseReceived | TrailersReceived):
                        reply.headers.update(event.headers)
                    elif isinstance(event, DataReceived):
                        reply.body += event.data
                    elif isinstance(event, StreamReset):
                        reply.reset = event.error_code
                        return reply
                    elif isinstance(event, StreamEnded):
                        return reply
        except (ConnectionError, ssl.SSLError):
            reply.hung_up = True
            return reply

    def wait_for(self, kind: type[Event]) -> Any:
        """Wait for an event of a kind. Raises ``ConnectionError`` if the connection ends first."""
        while True:
            for event in self.receive():
                if isinstance(event, kind):
                    return event

    def close(self) -> None:
        self.socket.close()


@contextmanager
def raw_client(
    address: str, context: ssl.SSLContext, *, timeout: float = 20.0
) -> Iterator[RawClient]:
    client = RawClient(address, context, timeout=timeout)
    try:
        yield client
    finally:
        client.close()
