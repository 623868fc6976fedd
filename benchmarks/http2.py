"""A gRPC client that costs very little: HTTP/2 frames over TLS 1.3, made by hand.

A client written with grpcio needs more CPU per call than the server that it should keep busy, and
the figure of a server that waits for its client includes sleeping and waking. This one prepares
every frame beforehand. It does only what it measures: one connection, messages of one size, answers
counted and not decoded.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE = 4  # the number of the setting (RFC 9113, section 6.5.2)
_DEFAULT_WINDOW = 65_535
_LARGEST_WINDOW = 2**31 - 1
_FIRST_DYNAMIC = 62  # RFC 7541, section 2.3.3
_READ = 256 * 1024


@dataclass(frozen=True)
class Tally:
    """How calls ended: ``served`` with a message each, ``refused`` by a status alone."""

    served: int
    refused: int


class HTTP2Error(Exception):
    """The server ended the connection or a stream in a way that makes the measurement void."""


class Client:
    """One connection that makes one kind of call.

    ``authorizations`` gives the value for each call in turn, None for calls without one. It is sent
    in full every time, as any HPACK encoder may; the other headers become one byte each after the
    first call.
    """

    def __init__(
        self,
        port: int,
        *,
        folder: Path,
        method: str,
        payload: bytes,
        authorizations: Iterator[str | None],
    ) -> None:
        """Connect to localhost with ``ca.pem``, ``client.pem`` and ``client.key`` of the folder."""
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname="localhost")
        self._authorizations = authorizations
        self._message = struct.pack(">BI", 0, len(payload)) + payload
        self._headers = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", method.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"secure-grpc-benchmark/1"),
        ]
        self._indexed = False
        self._next_stream = 1
        self._buffer = b""
        # What the server lets us send on the connection, and on a stream at its start.
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW))
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW))
        )

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def unary(self, calls: int, in_flight: int) -> Tally:
        """Make calls, ``at_once`` at a time, and wait for all of them."""
        open_streams: dict[int, int] = {}  # stream to bytes received
        started = served = refused = 0
        size = len(self._message)
        while served + refused < calls:
            out = bytearray()
            while len(open_streams) < in_flight and started < calls and self._window >= size:
                stream = self._begin(out)
                out += _frame(_DATA, _END_STREAM, stream, self._message)
                self._window -= size
                open_streams[stream] = 0
                started += 1
            if out:
                self._socket.sendall(out)
            for kind, flags, stream, body in self._frames():
                if stream not in open_streams:
                    continue  # RST_STREAM after the trailers: the server had not read it all
                if kind == _RST_STREAM:
                    raise HTTP2Error(f"A call was reset: error {int.from_bytes(body)}.")
                if kind == _DATA:
                    open_streams[stream] += len(body)
                if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                    received = open_streams.pop(stream)
                    if received not in (0, size):
                        raise HTTP2Error(f"An answer has {received} bytes and not {size}.")
                    served += received == size
                    refused += received == 0
        return Tally(served, refused)

    def stream(self, messages: int, in_flight: int) -> Tally:
        """Open one bidirectional stream whose messages come back, several in flight."""
        out = bytearray()
        stream = self._begin(out)
        size = len(self._message)
        frame = _frame(_DATA, 0, stream, self._message)
        window, sent, received, ended = self._stream_window, 0, 0, False
        while received < messages * size:
            answered = received // size
            while (
                sent < messages
                and sent - answered < in_flight
                and min(window, self._window) >= size
            ):
                out += frame
                window -= size
                self._window -= size
                sent += 1
            if out:
                self._socket.sendall(out)
                out = bytearray()
            for kind, flags, number, body in self._frames():
                if number != stream:
                    continue
                if kind == _DATA:
                    received += len(body)
                elif kind == _WINDOW_UPDATE:
                    window += int.from_bytes(body)
                elif flags & _END_STREAM or kind == _RST_STREAM:
                    raise HTTP2Error("The stream ended before its messages.")
        self._socket.sendall(_frame(_DATA, _END_STREAM, stream, b""))
        while not ended:
            ended = any(
                number == stream and kind == _HEADERS and flags & _END_STREAM
                for kind, flags, number, _ in self._frames()
            )
        return Tally(received // size, 0)

    def _begin(self, out: bytearray) -> int:
        """Add the HEADERS of a new stream."""
        stream = self._next_stream
        self._next_stream += 2
        if self._indexed:
            last = _FIRST_DYNAMIC + len(self._headers) - 1
            block = bytes(0x80 | (last - place) for place in range(len(self._headers)))
        else:
            block = b"".join(_literal(0x40, name, value) for name, value in self._headers)
            self._indexed = True
        authorization = next(self._authorizations)
        if authorization is not None:
            block += _literal(0x10, b"authorization", authorization.encode())
        out += _frame(_HEADERS, _END_HEADERS, stream, block)
        return stream

    def _frames(self) -> list[tuple[int, int, int, bytes]]:
        """Wait for more, see to the connection itself, and return the frames of streams."""
        data = self._socket.recv(_READ)
        if not data:
            raise HTTP2Error("The server closed the connection.")
        data = self._buffer + data
        frames = []
        at, end = 0, len(data)
        while end - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            if end - at < 9 + length:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFFFFFF
            body = data[at + 9 : at + 9 + length]
            at += 9 + length
            if stream:
                frames.append((kind, flags, stream, body))
            else:
                self._connection_frame(kind, flags, body)
        self._buffer = data[at:]
        return frames

    def _connection_frame(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            self._window += int.from_bytes(body)
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, _ACK, 0, body))
        elif kind == _SETTINGS and not flags & _ACK:
            for number, value in struct.iter_unpack(">HI", body):
                if number == _INITIAL_WINDOW_SIZE:
                    self._stream_window = value
            self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _GOAWAY:
            raise HTTP2Error(f"The server went away: {body[8:].decode('utf-8', 'replace')!r}.")


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _literal(prefix: int, name: bytes, value: bytes) -> bytes:
    """Write a header field with its name (RFC 7541, section 6.2): 0x40 adds it to the table, 0x10
    forbids that ("never indexed").
    """
    return bytes([prefix]) + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    """Write a string without Huffman code (RFC 7541, sections 5.1 and 5.2)."""
    length = len(text)
    if length < 0x7F:
        return bytes([length]) + text
    head = bytearray([0x7F])
    length -= 0x7F
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + text
