"""A server on asyncio behind real mutual TLS: a method of each kind, which sends its input back."""

import asyncio
import ipaddress
from contextlib import asynccontextmanager

import grpc
import pytest

from secure_client import aio

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
STREAMS = KINDS[1:]


class Echo(grpc.GenericRpcHandler):
    """Notes the tokens and the certificate of every call, and answers as configured."""

    def __init__(self):
        self.calls = []
        self.tokens = []
        self.certificates = []
        self.remaining = []
        self.refused = set()
        self.gate = None
        self.waiting = asyncio.Event()
        self.ended = asyncio.Event()

    def service(self, details):
        kind = details.method.rpartition("/")[2]
        return getattr(grpc, f"{kind}_rpc_method_handler")(getattr(self, kind))

    async def enter(self, kind, context):
        sent = [v for k, v in context.invocation_metadata() if k == "authorization"]
        self.calls.append(kind)
        self.tokens.append(sent)
        self.certificates.append(context.auth_context()["x509_pem_cert"][0])
        self.remaining.append(context.time_remaining())
        if self.refused.intersection(sent):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not authenticated")
        if self.gate is not None:
            self.waiting.set()
            try:
                await self.gate.wait()
            finally:
                self.ended.set()

    async def unary_unary(self, request, context):
        await self.enter("unary_unary", context)
        return request

    async def unary_stream(self, request, context):
        await self.enter("unary_stream", context)
        for part in request.split():
            yield part

    async def stream_unary(self, requests, context):
        await self.enter("stream_unary", context)
        return b" ".join([part async for part in requests])

    async def stream_stream(self, requests, context):
        await self.enter("stream_stream", context)
        async for part in requests:
            yield part


@asynccontextmanager
async def serving(world):
    """``(echo, open_channel)``; the latter is ``aio.connect`` with certificates of this world."""
    issued = world.authority.issue_server("echo", ["localhost"], [ipaddress.ip_address("::1")])
    echo = Echo()
    server = grpc.aio.server(handlers=[echo], options=[("grpc.so_reuseport", 0)])
    credentials = grpc.ssl_server_credentials(
        [(issued.private_key_pem, issued.certificate_pem)],
        world.authority.certificate_pem,
        require_client_auth=True,
    )
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        yield echo, lambda **more: open_channel(world, port, **more)
    finally:
        await server.stop(None)


def open_channel(world, port, **more):
    certificate, key = world.client()
    return aio.connect(
        f"localhost:{port}", ca=world.ca, certificate=certificate, private_key=key, **more
    )


def method(channel, kind, *serializers):
    return getattr(channel, kind)(f"/test.Echo/{kind}", *serializers)


async def call(channel, kind, text=b"a b", **more):
    """Call the method of this kind to its end; returns ``text``."""
    start = method(channel, kind)
    request = iter(text.split()) if kind.startswith("stream") else text
    begun = start(request, **more)
    if kind.endswith("unary"):
        return await begun
    return b" ".join([part async for part in begun])


async def failure(channel, kind):
    """The error of a call of this kind that sends no message of a stream.

    A message sent after the server has ended a call sometimes turns its status into INTERNAL.
    """
    begun = method(channel, kind)(b"a" if kind.startswith("unary") else None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (begun if kind.endswith("unary") else begun.read())
    return caught.value
