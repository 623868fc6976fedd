"""The greeter on grpcio's asyncio stack."""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc

import secure_server
from greeter.v1 import greeter_pb2 as pb
from greeter.v1.greeter_pb2_grpc import (
    GreeterServiceServicer,
    add_GreeterServiceServicer_to_server,
)


class Greeter(GreeterServiceServicer):
    async def SayHello(
        self, request: pb.SayHelloRequest, context: grpc.aio.ServicerContext
    ) -> pb.SayHelloResponse:
        return pb.SayHelloResponse(message=f"Hello {secure_server.current_principal().subject}")

    async def SayHellos(
        self, request: pb.SayHellosRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.SayHellosResponse]:
        for number in range(request.times):
            subject = secure_server.current_principal().subject
            yield pb.SayHellosResponse(message=f"Hello {subject}, {number + 1}")

    async def GreetAll(
        self, request_iterator: AsyncIterator[pb.GreetAllRequest], context: grpc.aio.ServicerContext
    ) -> pb.GreetAllResponse:
        names = ", ".join([request.name async for request in request_iterator])
        return pb.GreetAllResponse(message=f"Hello {names}")

    async def Chat(
        self, request_iterator: AsyncIterator[pb.ChatRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ChatResponse]:
        async for request in request_iterator:
            yield pb.ChatResponse(message=f"Hello {request.name}")


async def main(address: str) -> None:
    guard = secure_server.Guard.from_config("greeter.toml")
    server = grpc.aio.server(interceptors=[guard.aio_interceptor()], options=guard.options())
    add_GreeterServiceServicer_to_server(Greeter(), server)
    port = server.add_secure_port(address, guard.server_credentials())
    await server.start()
    print(f"serving on port {port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["localhost:50052"]))
