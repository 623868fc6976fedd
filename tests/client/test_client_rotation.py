"""The channel while its certificate, its key and its CA are replaced; see the asyncio one too."""

import dataclasses
import gc
import os
import socket
import threading
import time
import weakref
from datetime import timedelta

import grpc
import pytest
from client_fakes import NOW, Renewing, Requests, access_token, open_channel, subject
from client_seen import connections, let_pass, often, settle, thumbprint, until
from client_service import start

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_base.reloading import Follower, signature
from secure_client import AccessToken, WorkloadTokenSource, connect
from secure_client._clock import Clock
from secure_client._endpoint import Endpoint
from secure_client._files import Files
from secure_tls import Authority

KEEPS = "cannot be reloaded; the last good one stays"


def failures(channel):
    return channel._files._status._tries


def look_later(channel):
    """Look a second after the last time."""
    let_pass(channel._files, 1.0)
    channel.look_and_wait()


__all__ = ["often"]


# Files that are used, and when


def test_C7_a_new_certificate_is_used_and_calls_in_flight_finish(world, running):
    requests = Requests()
    with open_channel(world, running, host="127.0.0.1") as channel:
        before = subject(channel)
        stream = TokenServiceStub(channel).Introspect(requests)
        requests.send("first")
        assert next(stream).correlation_id == "first"
        until(lambda: connections(running.port) == 1)

        world.client()
        channel.look_and_wait()

        assert subject(channel) != before
        until(lambda: connections(running.port) == 2)
        requests.send("second")
        assert next(stream).correlation_id == "second"
        requests.end()
        assert list(stream) == []
        until(lambda: connections(running.port) == 1)


def test_C7_the_files_are_watched_whether_there_are_calls_or_not(world, running, often):
    with open_channel(world, running) as channel:
        before = channel._rotation.current
        world.client()
        until(lambda: channel._rotation.current is not before)
        assert subject(channel).encode() == (world.folder / "alice.pem").read_bytes()


def test_C7_the_first_call_after_a_renewal_needs_no_connection_of_its_own(world, running):
    with open_channel(world, running, tokens=Renewing()) as channel:
        subject(channel)
        world.client()
        channel.look_and_wait()
        states = []
        channel.subscribe(states.append)
        until(lambda: states)
        assert states[0] is grpc.ChannelConnectivity.READY


def test_C7_a_link_that_is_swapped_is_followed(world, running, tmp_path):
    # As Kubernetes does: the files are links into ..data, which is a link to a folder.
    mount = tmp_path / "mount"
    for number in (1, 2):
        world.client()
        folder = mount / f"..{number}"
        folder.mkdir(parents=True)
        for path in world.folder.iterdir():
            path.rename(folder / path.name)
        world.ca.write_bytes(world.authority.certificate_pem)
    (mount / "..data").symlink_to("..1")
    (mount / "..2" / "ca.pem").write_bytes(world.authority.certificate_pem)
    for name in ("alice.pem", "alice.key", "ca.pem"):
        (mount / name).symlink_to(f"..data/{name}")
    endpoint = Endpoint(
        running.target,
        ca=mount / "ca.pem",
        certificate=mount / "alice.pem",
        private_key=mount / "alice.key",
    )
    watched = Files(endpoint)
    settle(watched)
    assert watched.read() is None
    assert not watched.changed()
    (mount / "..new").symlink_to("..2")
    (mount / "..new").rename(mount / "..data")
    assert watched.changed()
    found = watched.read()
    assert found.thumbprint() == thumbprint((mount / "..2/alice.pem").read_bytes())


def test_C7_files_that_are_written_slowly_are_used_when_they_are_complete(world, running, caplog):
    issued = world.authority.issue_client("alice")
    with open_channel(world, running) as channel:
        before = subject(channel)
        for name, data in (("alice.pem", issued.certificate_pem), ("alice.key", None)):
            content = data or issued.private_key_pem
            with (world.folder / name).open("wb", buffering=0) as file:
                for start_at in range(0, len(content), 100):
                    channel.look_and_wait()
                    assert subject(channel) == before
                    file.write(content[start_at : start_at + 100])
        channel.look_and_wait()
        assert subject(channel).encode() == issued.certificate_pem
    assert caplog.text == ""


def test_C7_a_half_replaced_pair_is_not_used(world, running):
    with open_channel(world, running) as channel:
        before = subject(channel)
        certificate = world.folder / "alice.pem"
        old = certificate.read_bytes()
        certificate.write_bytes(world.authority.issue_client("alice").certificate_pem)
        channel.look_and_wait()
        assert subject(channel) == before
        certificate.write_bytes(old)
        channel.look_and_wait()
        assert subject(channel) == before


def test_files_that_are_only_touched_change_nothing(world, running):
    with open_channel(world, running) as channel:
        counted = channel._rotation.current
        os.utime(world.ca)
        assert channel._files.changed()
        settle(channel._files)
        channel.look_and_wait()
        assert channel._rotation.current is counted
        assert not channel._files.changed()


# Files that are not used


def expired(world):
    authority = dataclasses.replace(world.authority, clock=lambda: time.time() - 240)
    return authority.issue_client("alice", timedelta(minutes=1))


def stranger(world):
    return Authority.create("example.org").issue_client("alice")


def another_client(world):
    return world.authority.issue_client("mallory")


@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        (expired, "expired on"),
        (stranger, "no connection comes about"),
        (another_client, "spiffe://example.org/client/mallory"),
    ],
)
def test_C7_what_cannot_be_used_is_not_taken_and_one_line_says_why(
    world, running, often, monkeypatch, caplog, issue, reason
):
    monkeypatch.setattr("secure_base.reloading.status._LONGEST_PAUSE", 0.0)
    with open_channel(world, running) as channel:
        before = subject(channel)
        issued = issue(world)
        world.client("alice", issued)
        until(lambda: failures(channel) > 2)
        assert subject(channel) == before
        # Sometimes half of it is seen twice, before the other half is written.
        assert sum(KEEPS in each and reason in each for each in caplog.messages) == 1
        assert "PRIVATE KEY" not in caplog.text
        # And it is repaired the same way.
        world.client()
        until(lambda: subject(channel) != before)


def test_C7_another_clients_certificate_never_carries_the_sessions_refresh_token(world, running):
    source = WorkloadTokenSource(world.connection(running.port))
    with open_channel(world, running, tokens=source) as channel:
        subject(channel)
        asked = running.service.names().count("IssueToken")
        world.client("alice", another_client(world))
        channel.look_and_wait()
        subject(channel)
        assert running.service.names().count("IssueToken") == asked


def test_C7_a_source_that_gives_no_token_for_the_new_certificate_keeps_the_old(
    world, running, caplog
):
    class Failing(Renewing):
        def token(self, *, refused=None):
            if refused is not None:
                raise RuntimeError("password=hunter2")
            return super().token()

    with open_channel(world, running, tokens=Failing()) as channel:
        before = subject(channel)
        world.client()
        channel.look_and_wait()
        look_later(channel)
        assert subject(channel) == before
        assert "no access token could be obtained (RuntimeError)" in caplog.text
        assert "hunter2" not in caplog.text


def test_what_failed_is_tried_again_later_and_later_and_at_once_when_it_changes(world):
    elapsed = [0.0]
    files = Files(
        Endpoint(
            "localhost:1",
            ca=world.ca,
            certificate=world.client()[0],
            private_key=world.folder / "alice.key",
        ),
        Clock(time.time, lambda: elapsed[0]),
    )
    world.client()
    settle(files)
    tried = []
    for second in range(120):
        elapsed[0] = float(second)
        if files.changed():
            tried.append(second)
            assert files.read() is not None
            files.refuse("it is cold")
    assert tried == [0, 1, 2, 4, 8, 16, 32, 62, 92]
    assert not files.changed()
    world.client()
    assert files.changed()


def test_an_expired_certificate_is_replaced_unproven(world, running):
    with open_channel(world, running) as channel:
        subject(channel)
        far = Clock(lambda: time.time() + 10**9)
        world.client("alice", stranger(world))
        channel.look_and_wait()
        kept = channel._rotation.current
        channel._files._clock = far
        look_later(channel)
        assert channel._rotation.current is not kept


# Authorities


def test_C7_the_ca_is_replaced_by_both_and_then_by_the_new_one(world, running, caplog):
    successor = Authority.create("example.org")
    old, new = world.authority.certificate_pem, successor.certificate_pem
    with open_channel(world, running) as channel:
        before = subject(channel)
        # Too early: the server still has the old one, and calls continue.
        world.ca.write_bytes(new)
        channel.look_and_wait()
        look_later(channel)
        assert subject(channel) == before
        assert "no connection comes about" in caplog.text

        world.ca.write_bytes(old + new)
        channel.look_and_wait()
        assert channel._files.identity.files.ca_bundle == old + new
        subject(channel)
    server, moved = start(world, running.service, authority=successor)
    try:
        with open_channel(world, moved) as channel:
            subject(channel)
            world.ca.write_bytes(new)
            channel.look_and_wait()
            assert channel._files.identity.files.ca_bundle == new
            subject(channel)
    finally:
        server.stop(None).wait()


def test_C7_another_ca_alone_asks_for_no_other_token(world, running):
    source = Renewing()
    with open_channel(world, running, tokens=source) as channel:
        subject(channel)
        counted = channel._rotation.current
        world.ca.write_bytes(world.authority.certificate_pem + b"\n")
        channel.look_and_wait()
        assert channel._rotation.current is not counted
        subject(channel)
    assert [sent for _, sent in running.service.calls] == [["Bearer token-0"]] * 2


# Tokens


def test_C7_a_new_certificate_asks_for_another_token_before_the_first_call(world, running):
    source = Renewing()
    with open_channel(world, running, tokens=source) as channel:
        subject(channel)
        world.client()
        channel.look_and_wait()
        assert source.asked == [None, AccessToken("token-0")]
        subject(channel)
    assert [sent for _, sent in running.service.calls] == [["Bearer token-0"], ["Bearer token-1"]]


class AtOnce:
    """Tokens bound to the file's certificate, which may be newer than the channel's."""

    def __init__(self, certificate):
        self.certificate = certificate

    def token(self, *, refused=None):
        bound = thumbprint(self.certificate.read_bytes())
        return AccessToken(access_token(bound, cnf={"x5t#S256": bound}))


def test_C7_a_token_goes_only_over_the_certificate_that_it_is_bound_to(world, running):
    with open_channel(world, running, tokens=AtOnce(world.folder / "alice.pem")) as channel:
        for _ in range(3):
            subject(channel)
            world.client()
            # The source is newer than the channel now.
            shown = subject(channel)
            (_, [sent]) = running.service.calls[-1]
            assert AccessToken(sent.removeprefix("Bearer ")).claims()["cnf"] == {
                "x5t#S256": thumbprint(shown.encode())
            }
            channel.look_and_wait()
            assert subject(channel) != shown


def test_C7_a_token_that_says_it_is_bound_to_no_certificate_is_kept(world, running):
    class Bearer(Renewing):
        def token(self, *, refused=None):
            self.asked.append(refused)
            return AccessToken(access_token(0))

    source = Bearer()
    with open_channel(world, running, tokens=source) as channel:
        subject(channel)
        world.client()
        channel.look_and_wait()
        subject(channel)
    assert set(source.asked) == {None}


def test_C3_channels_that_share_a_source_share_its_fetches(world, running):
    source = WorkloadTokenSource(world.connection(running.port))
    with (
        open_channel(world, running, tokens=source) as one,
        open_channel(world, running, tokens=source) as two,
    ):
        # Each `open_channel` has written new files.
        one.look_and_wait()
        for issued in (1, 2):
            for channel in (one, two):
                subject(channel)
            assert running.service.names().count("IssueToken") <= issued + 1
            world.client()
            threads = [threading.Thread(target=each.look_and_wait) for each in (one, two)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert running.service.names().count("IssueToken") == 3


def test_C4_tokens_are_renewed_with_the_certificate_in_use_whatever_the_files_hold(world, running):
    elapsed = [1000.0]
    clock = Clock(lambda: float(NOW), lambda: elapsed[0])
    source = WorkloadTokenSource(world.connection(running.port), clock=clock)
    with open_channel(world, running, tokens=source) as channel:
        before = subject(channel)
        (world.folder / "alice.key").write_bytes(b"nonsense")
        elapsed[0] += 10_000
        assert subject(channel) == before
    assert running.service.names() == ["IssueToken", "WhoAmI"] * 2


def test_what_is_no_access_token_is_never_sent(world, running, caplog):
    class Text:
        def token(self, *, refused=None):
            return "hunter2"

    with open_channel(world, running, tokens=Text()) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            TokenServiceStub(channel).Logout(pb.LogoutRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        world.client()
        channel.look_and_wait()
        look_later(channel)
    assert "no access token could be obtained (TypeError)" in caplog.text
    assert "hunter2" not in caplog.text
    assert running.service.calls == []


def test_without_a_certificate_there_is_nothing_that_a_token_could_be_bound_to(shared_world):
    identity = Endpoint("localhost:1", ca=shared_world.ca).read()
    assert identity.thumbprint() is None
    assert identity.spiffe_id() is None
    assert not identity.has_expired(float("inf"))
    assert identity.is_foreign(AccessToken(access_token(0, cnf={"x5t#S256": "another's"})))
    assert not identity.is_foreign(AccessToken("opaque"))


# What remains after closing


def test_subscribers_to_the_state_follow_the_new_channel(world, running):
    with open_channel(world, running) as channel:
        states = []
        channel.subscribe(states.append, try_to_connect=True)
        until(lambda: grpc.ChannelConnectivity.READY in states)
        world.client()
        channel.look_and_wait()
        # Like every new subscriber it gets the current state first.
        until(lambda: states.count(grpc.ChannelConnectivity.READY) == 2)
        channel.unsubscribe(states.append)
        assert channel._subscribers == []


def test_a_look_that_breaks_keeps_the_channel(world, running, monkeypatch, caplog):
    def fail(files):
        files._tried = signature(files._endpoint.paths)
        raise RuntimeError("hunter2")

    with open_channel(world, running) as channel:
        before = subject(channel)
        with monkeypatch.context() as patched:
            patched.setattr(Files, "read", fail)
            world.client()
            channel.look_and_wait()
            look_later(channel)
        assert subject(channel) == before
        assert caplog.text.count("RuntimeError") == 1
        assert "hunter2" not in caplog.text


def test_one_that_cannot_be_looked_at_does_not_keep_the_others_from_it(often):
    class Breaking:
        def look(self):
            raise RuntimeError

    class Looked:
        def __init__(self):
            self.at = threading.Event()

        def look(self):
            self.at.set()

    watch = Follower("looks", lambda _: None, interval=0.01)
    breaking, looked = [Breaking(), Breaking()], Looked()
    for each in (breaking[0], looked, breaking[1]):
        watch.add(each)
    assert looked.at.wait(30)
    looked.at.clear()
    assert looked.at.wait(30)
    del breaking, looked, each
    until(lambda: watch._thread is None)


def clients():
    """The number of threads except the server's, which grow on demand."""
    return sum("ThreadPoolExecutor" not in each.name for each in threading.enumerate())


def test_old_channels_leave_nothing_behind(world, running, often):
    with open_channel(world, running, host="127.0.0.1", tokens=Renewing()) as channel:
        subject(channel)
        seen = weakref.WeakSet([channel._rotation.current])
        threads = clients()
        for _ in range(8):
            before, requests = channel._rotation.current, Requests()
            stream = TokenServiceStub(channel).Introspect(requests)
            world.client()
            until(lambda before=before: channel._rotation.current is not before)
            seen.add(channel._rotation.current)
            subject(channel)
            requests.end()
            assert list(stream) == []
        del before, stream
        until(lambda: len(channel._rotation.all()) == 1)
        until(lambda: connections(running.port) == 1)
        until(lambda: clients() <= threads)
        until(lambda: (gc.collect(), len(seen))[1] == 1)


def test_many_channels_are_watched_by_one_thread_and_none_by_none(world, often):
    ca = world.ca

    def watching():
        return sum(each.name == "secure_client files" for each in threading.enumerate())

    channels = [connect("localhost:1", ca=ca) for _ in range(20)]
    # An idle one may just be ending.
    until(lambda: watching() == 1)
    for channel in channels[:19]:
        channel.close()
    # A channel collected without being closed is not watched either.
    found = weakref.ref(channels[19])
    del channel, channels
    until(lambda: (gc.collect(), watching())[1] == 0)
    assert found() is None
    with connect("localhost:1", ca=ca):
        until(lambda: watching() == 1)


def test_closing_does_not_wait_for_a_server_that_says_nothing(world, running):
    with socket.create_server(("localhost", 0)) as silent:
        certificate, key = world.client()
        channel = connect(
            f"localhost:{silent.getsockname()[1]}",
            ca=world.ca,
            certificate=certificate,
            private_key=key,
        )
        world.client()
        channel.look()
        renewing = channel._renewing
        connection, _ = silent.accept()
        begun = time.monotonic()
        channel.close()
        renewing.join(30)
        assert time.monotonic() - begun < 5
        connection.close()
        channel.look_and_wait()
        assert not renewing.is_alive()
