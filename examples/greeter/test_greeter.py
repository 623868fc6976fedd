"""The greeter's own test: its servicer alone, and its policy on a real guarded server."""

import json
from pathlib import Path

import grpc
import pytest
from serve_threads import Greeter

from greeter.v1 import greeter_pb2 as pb
from greeter.v1.greeter_pb2_grpc import (
    GreeterServiceStub,
    add_GreeterServiceServicer_to_server,
)
from secure_server.testing import as_principal, guarded_server

POLICY = json.loads((Path(__file__).parent / "policy.json").read_text(encoding="utf-8"))


def test_the_caller_is_greeted_by_name():
    with as_principal("alice"):
        response = Greeter().SayHello(pb.SayHelloRequest(), context=None)
    assert response.message == "Hello alice"


def test_administrators_greet_all_and_others_do_not():
    def add_servicers(server):
        add_GreeterServiceServicer_to_server(Greeter(), server)

    names = [pb.GreetAllRequest(name="Ada"), pb.GreetAllRequest(name="Grace")]
    with guarded_server(add_servicers, policy=POLICY) as server:
        admin = GreeterServiceStub(server.channel("root", roles=["admin"]))
        assert admin.GreetAll(iter(names), timeout=10).message == "Hello Ada, Grace"
        guest = GreeterServiceStub(server.channel("alice"))
        assert guest.SayHello(pb.SayHelloRequest(), timeout=10).message == "Hello alice"
        with pytest.raises(grpc.RpcError) as refused:
            guest.GreetAll(iter(names), timeout=10)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
