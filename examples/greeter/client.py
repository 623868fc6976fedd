"""All four kinds of call, with a client certificate and a token."""

import sys

import grpc

from greeter.v1 import greeter_pb2 as pb
from greeter.v1.greeter_pb2_grpc import GreeterServiceStub
from secure_client import FileTokenSource, connect


def main(target: str) -> None:
    with connect(
        target,
        ca="certs/ca.pem",
        certificate="certs/clients/admin.pem",
        private_key="certs/clients/admin.key",
        tokens=FileTokenSource("token"),  # secure-client token > token
    ) as channel:
        greeter = GreeterServiceStub(channel)
        print(greeter.SayHello(pb.SayHelloRequest()).message)
        for response in greeter.SayHellos(pb.SayHellosRequest(times=2)):
            print(response.message)
        everybody = (pb.GreetAllRequest(name=name) for name in ("Ada", "Grace"))
        print(greeter.GreetAll(everybody).message)
        for answer in greeter.Chat(pb.ChatRequest(name=name) for name in ("Alan", "Edsger")):
            print(answer.message)

    with connect(
        target,
        ca="certs/ca.pem",
        certificate="certs/clients/admin.pem",
        private_key="certs/clients/admin.key",
    ) as channel:
        try:
            GreeterServiceStub(channel).SayHello(pb.SayHelloRequest())
        except grpc.RpcError as error:
            print(f"without a token: {error.code().name}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["localhost:50052"])
