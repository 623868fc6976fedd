"""The channel: what it refuses to build, what it adds to a call, how it changes certificates."""

import json
import threading

import grpc
import pytest
from client_fakes import Broken, Fixed, Renewing, Requests, open_channel, subject

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2
from secure_client import AccessToken, ConfigurationError, connect
from secure_client._credentials import TokenPlugin
from secure_client._endpoint import Endpoint
from secure_client._service_config import service_config
from secure_tls import TLSFileError


def test_C1_a_token_without_tls_is_refused_when_the_channel_is_built():
    with pytest.raises(ConfigurationError, match="in the clear"):
        connect("localhost:1", ca=None, tokens=Fixed())
    with pytest.raises(ConfigurationError, match="in the clear"):
        connect("localhost:1", ca="", tokens=Fixed())


@pytest.mark.parametrize(
    "target", ["", "http://localhost:1", "HTTPS://a:1", "grpc://a", "a b:1", "a:1\n"]
)
def test_what_is_no_target_is_refused(target, shared_world):
    with pytest.raises(ConfigurationError, match="host:port"):
        connect(target, ca=shared_world.ca)


def test_a_deadline_that_has_passed_is_refused(shared_world):
    for timeout in (0, -1, float("nan")):
        with pytest.raises(ConfigurationError, match="deadline"):
            connect("localhost:1", ca=shared_world.ca, timeout=timeout)


def test_C6_tokens_of_one_target_do_not_go_to_another(shared_world):
    source = Fixed()
    source.target = "good.example:443"
    with pytest.raises(ConfigurationError, match="do not go to"):
        connect("evil.example:443", ca=shared_world.ca, tokens=source)


def test_half_a_pair_is_refused_before_grpc_sees_it(world):
    certificate, key = world.client()
    with pytest.raises(TLSFileError):
        connect("localhost:1", ca=world.ca, certificate=certificate)
    with pytest.raises(TLSFileError):
        connect("localhost:1", ca=world.ca, private_key=key)


def test_every_call_carries_the_token_once(world, running):
    with open_channel(world, running, tokens=Fixed()) as channel:
        stub = TokenServiceStub(channel)
        stub.WhoAmI(pb.WhoAmIRequest())
        stub.WhoAmI.future(pb.WhoAmIRequest()).result()
        list(stub.Introspect(iter([pb.IntrospectRequest(correlation_id="1")])))
    assert running.service.calls == [
        ("WhoAmI", ["Bearer token-a"]),
        ("WhoAmI", ["Bearer token-a"]),
        ("Introspect", ["Bearer token-a"]),
    ]


def test_without_a_source_no_credential_is_sent(world, running):
    with open_channel(world, running) as channel:
        TokenServiceStub(channel).WhoAmI(pb.WhoAmIRequest())
    assert running.service.calls == [("WhoAmI", [])]


def test_C2_a_source_that_fails_is_unavailable_without_its_text(world, running, caplog):
    with (
        open_channel(world, running, tokens=Broken()) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        TokenServiceStub(channel).Logout(pb.LogoutRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "hunter2" not in caught.value.details()
    assert "hunter2" not in repr(caught.value)
    assert "hunter2" not in caplog.text
    assert running.service.calls == []


def test_C5_a_refused_token_is_replaced_and_the_call_sent_once_more(world, running):
    source = Renewing()
    running.service.refused = {"Bearer token-0"}
    with open_channel(world, running, tokens=source) as channel:
        stub = TokenServiceStub(channel)
        stub.WhoAmI(pb.WhoAmIRequest())
        stub.WhoAmI(pb.WhoAmIRequest())
    assert [sent for _, sent in running.service.calls] == [
        ["Bearer token-0"],
        ["Bearer token-1"],
        ["Bearer token-1"],
    ]


def test_C3_a_token_that_has_been_replaced_meanwhile_is_not_refused_once_more(shared_world):
    identity = Endpoint("localhost:1", ca=shared_world.ca).read()
    plugin = TokenPlugin(Renewing(), identity, refused=AccessToken("of-the-old-certificate"))
    plugin.refuse(AccessToken("older-still"))
    assert plugin.refused == AccessToken("of-the-old-certificate")
    plugin(None, lambda *_: None)
    plugin.refuse(AccessToken("older-still"))
    assert plugin.refused == AccessToken("of-the-old-certificate")
    plugin.refuse(AccessToken("token-0"))
    assert plugin.refused == AccessToken("token-0")


def test_C5_one_retry_and_no_more(world, running):
    running.service.refused = {f"Bearer token-{n}" for n in range(9)}
    with (
        open_channel(world, running, tokens=Renewing()) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        TokenServiceStub(channel).WhoAmI(pb.WhoAmIRequest())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(running.service.calls) == 2


def test_C5_where_there_is_no_fresh_token_the_first_answer_stands(world, running):
    class Once(Renewing):
        def token(self, *, refused=None):
            if refused is not None:
                raise RuntimeError("the session is over")
            return AccessToken("token-0")

    running.service.refused = {"Bearer token-0"}
    with (
        open_channel(world, running, tokens=Once()) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        TokenServiceStub(channel).WhoAmI(pb.WhoAmIRequest())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.details() == "not authenticated"


def test_a_refusal_without_tokens_is_not_sent_again(world, running):
    running.service.fail["WhoAmI"] = [grpc.StatusCode.UNAUTHENTICATED]
    with open_channel(world, running) as channel, pytest.raises(grpc.RpcError):
        TokenServiceStub(channel).WhoAmI(pb.WhoAmIRequest())
    assert running.service.names() == ["WhoAmI"]


def test_an_idempotent_method_is_retried_on_unavailable(world, running):
    running.service.fail["WhoAmI"] = [grpc.StatusCode.UNAVAILABLE] * 2
    with open_channel(world, running) as channel:
        TokenServiceStub(channel).WhoAmI(pb.WhoAmIRequest())
    assert running.service.names() == ["WhoAmI"] * 3


def test_another_method_is_not_retried(world, running):
    running.service.fail["Logout"] = [grpc.StatusCode.UNAVAILABLE]
    with open_channel(world, running) as channel, pytest.raises(grpc.RpcError):
        TokenServiceStub(channel).Logout(pb.LogoutRequest())
    assert running.service.names() == ["Logout"]


def test_a_named_method_is_retried(world, running):
    running.service.fail["Logout"] = [grpc.StatusCode.UNAVAILABLE]
    named = ["secure_api.tokens.v1.TokenService/Logout"]
    with open_channel(world, running, idempotent_methods=named) as channel:
        TokenServiceStub(channel).Logout(pb.LogoutRequest())
    assert running.service.names() == ["Logout"] * 2


def test_a_unary_call_has_a_deadline_unless_it_sets_one(world, running):
    running.service.gate = threading.Event()
    try:
        with open_channel(world, running, timeout=0.2) as channel:
            stub = TokenServiceStub(channel)
            request = pb.RefreshRequest(refresh_token="refresh-0")
            for call in (stub.Refresh, lambda r: stub.Refresh.future(r).result()):
                with pytest.raises(grpc.RpcError) as caught:
                    call(request)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        running.service.gate.set()


def test_retried_are_exactly_the_methods_that_say_so():
    policy = json.loads(service_config())["methodConfig"]
    names = {
        (n["service"].rpartition(".")[2], n["method"]) for each in policy for n in each["name"]
    }
    assert names == {
        ("TokenService", "RevokeToken"),
        ("TokenService", "WhoAmI"),
        ("TokenService", "GetKeySet"),
        ("TokenService", "ListSessions"),
        ("TokenService", "RevokeOtherSessions"),
        ("UserService", "GetUser"),
        ("UserService", "ListUsers"),
        ("UserService", "WatchUsers"),
    }
    assert policy[0]["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_own_services_say_what_may_be_retried():
    descriptor = user_service_pb2.DESCRIPTOR.services_by_name["UserService"]
    config = json.loads(service_config([descriptor, "/my.Service/Get"]))
    assert {"service": "my.Service", "method": "Get"} in config["methodConfig"][0]["name"]


@pytest.mark.parametrize("name", ["Get", "my.Service/", "/Get", "a/b/c", ""])
def test_what_names_no_method_is_refused(name):
    with pytest.raises(ConfigurationError, match=r"package\.Service/Method"):
        service_config([name])


def test_no_call_is_counted_for_ever(world, running):
    with open_channel(world, running) as channel:
        stub = TokenServiceStub(channel)
        ended = threading.Event()
        for call in (stub.WhoAmI, lambda request: stub.WhoAmI.future(request).result()):
            running.service.fail["WhoAmI"] = [grpc.StatusCode.INTERNAL]
            with pytest.raises(grpc.RpcError):
                call(pb.WhoAmIRequest())
            call(pb.WhoAmIRequest())
        list(stub.Introspect(iter([pb.IntrospectRequest()])))
        cancelled = stub.Introspect(Requests())
        cancelled.add_callback(ended.set)
        cancelled.cancel()
        assert ended.wait(30)
        assert not channel._rotation.current.busy()


def test_closing_ends_calls_in_flight_on_every_channel(world, running):
    requests = Requests()
    channel = open_channel(world, running)
    stream = TokenServiceStub(channel).Introspect(requests)
    requests.send("first")
    next(stream)
    world.client()
    channel.look_and_wait()
    channel.close()
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    requests.end()
    with pytest.raises(ValueError, match="closed channel"):
        subject(channel)


def test_the_name_of_the_server_is_verified(world, running):
    with (
        open_channel(world, running, server_name="other.example") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        TokenServiceStub(channel).Logout(pb.LogoutRequest())
    assert "Hostname Verification" in caught.value.details()
