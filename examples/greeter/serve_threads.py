"""The greeter on grpcio's threaded stack."""

import sys
from collections.abc import Iterator

import grpc

import secure_server
from greeter.v1 import greeter_pb2 as pb
from greeter.v1.greeter_pb2_grpc import (
    GreeterServiceServicer,
    add_GreeterServiceServicer_to_server,
)


class Greeter(GreeterServiceServicer):
    def SayHello(
        self, request: pb.SayHelloRequest, context: grpc.ServicerContext
    ) -> pb.SayHelloResponse:
        return pb.SayHelloResponse(message=f"Hello {secure_server.current_principal().subject}")

    def SayHellos(
        self, request: pb.SayHellosRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.SayHellosResponse]:
        for number in range(request.times):
            subject = secure_server.current_principal().subject
            yield pb.SayHellosResponse(message=f"Hello {subject}, {number + 1}")

    def GreetAll(
        self, request_iterator: Iterator[pb.GreetAllRequest], context: grpc.ServicerContext
    ) -> pb.GreetAllResponse:
        names = ", ".join(request.name for request in request_iterator)
        return pb.GreetAllResponse(message=f"Hello {names}")

    def Chat(
        self, request_iterator: Iterator[pb.ChatRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ChatResponse]:
        for request in request_iterator:
            yield pb.ChatResponse(message=f"Hello {request.name}")


def main(address: str) -> None:
    guard = secure_server.Guard.from_config("greeter.toml")
    server = grpc.server(
        guard.thread_pool(), interceptors=[guard.interceptor()], options=guard.options()
    )
    add_GreeterServiceServicer_to_server(Greeter(), server)
    port = server.add_secure_port(address, guard.server_credentials())
    server.start()
    print(f"serving on port {port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:] or ["localhost:50052"])
