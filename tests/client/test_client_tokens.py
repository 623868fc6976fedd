"""Token sources: no secret leaks, one renewal for all callers, one process at a time."""

import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from client_fakes import NOW, access_token

from secure_base.reloading import signature
from secure_client import (
    AccessToken,
    FileTokenSource,
    NotLoggedInError,
    SessionEndedError,
    SessionTokenSource,
    TokenError,
    TokenRefusedError,
    TokenUnavailableError,
    WorkloadTokenSource,
)
from secure_client._clock import Clock
from secure_client.profile import Profile
from secure_client.session import Session
from secure_client.tokens.renewing import Fetched, RenewingToken
from support.door import wait_until


class FakeClock:
    """The test moves both clocks."""

    def __init__(self):
        self.wall_now, self.elapsed_now = float(NOW), 1000.0
        self.clock = Clock(lambda: self.wall_now, lambda: self.elapsed_now)

    def pass_time(self, seconds):
        self.wall_now += seconds
        self.elapsed_now += seconds


@pytest.fixture
def clock():
    return FakeClock()


def save_session(connection, *, expires_in, now=NOW, refresh="refresh-0", number=0):
    profile = Profile.named()
    profile.save(connection.settings())
    token = AccessToken(access_token(number, issued=int(now)), now + expires_in)
    session = Session("alice", connection.target, token, refresh, now + 86400)
    profile.session.save(session)
    return profile.session


# AccessToken


def test_C9_a_token_shows_itself_nowhere():
    token = AccessToken("very-secret", 12.0)

    def fail(token):
        raise RuntimeError("something else")

    try:
        fail(token)
    except RuntimeError as error:
        shown = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )
    assert "fail" in shown
    for text in (repr(token), str(token), f"{token}", repr([token]), shown):
        assert "very-secret" not in text
    with pytest.raises(TypeError):
        pickle.dumps(token)
    assert not hasattr(token, "__dict__")


@pytest.mark.parametrize(
    "text", ["", "two words", "line\nbreak", "a\r\nx-admin: 1", "é", "a" * 20_000]
)
def test_what_is_no_bearer_token_is_refused_and_not_quoted(text):
    with pytest.raises(TokenError) as caught:
        AccessToken(text)
    assert not text or text not in str(caught.value)


def test_claims_of_what_is_no_jwt_are_empty():
    for text in ("opaque", "a.b.c", "e30.e30.e30", "..", access_token(1)[:-40]):
        assert isinstance(AccessToken(text or "x").claims(), dict)


# FileTokenSource


def test_a_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "token"
    path.write_text("token-a\n")
    source = FileTokenSource(path)
    wait_until(lambda: signature([path]) == signature([path]))  # it may be written again at once
    first = source.token()
    assert first.value == "token-a"
    assert source.token() is first
    fresh = tmp_path / "fresh"
    fresh.write_text("token-b")
    fresh.rename(path)
    assert source.token().value == "token-b"


def test_a_file_that_is_written_over_with_the_same_time_and_size_is_read(tmp_path):
    path = tmp_path / "token"
    path.write_text("token-a")
    before = path.stat()
    source = FileTokenSource(path)
    assert source.token().value == "token-a"
    path.write_text("token-b")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source.token().value == "token-b"


def test_a_file_says_when_its_jwt_ends(tmp_path):
    path = tmp_path / "token"
    path.write_text(access_token(1))
    assert FileTokenSource(path).token().expires_at == NOW + 900


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"secret one\n", b"secret\nline"])
def test_C9_a_file_without_a_token_is_not_quoted(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(TokenError) as caught:
        FileTokenSource(path).token()
    assert str(path) in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_file_is_a_token_error(tmp_path):
    with pytest.raises(TokenError, match="No such file"):
        FileTokenSource(tmp_path / "none").token()


def test_a_pipe_is_not_opened(tmp_path):
    path = tmp_path / "token"
    os.mkfifo(path)
    with pytest.raises(TokenError, match="not a regular file"):
        FileTokenSource(path).token()


# RenewingToken


class Fetch:
    def __init__(self, lifetime=900.0):
        self.lifetime = lifetime
        self.count = 0
        self.gate = None
        self.entered = threading.Event()
        self.error = None

    def __call__(self, refused):
        self.count += 1
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return Fetched(AccessToken(f"token-{self.count}"), self.lifetime)


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_C3_a_hundred_calls_at_expiry_are_one_fetch(clock):
    fetch = Fetch()
    renewing = RenewingToken(fetch, clock.clock)
    renewing.token(None)
    clock.pass_time(1000)
    fetch.gate = threading.Event()
    with ThreadPoolExecutor(100) as pool:
        found = [pool.submit(renewing.token, None) for _ in range(100)]
        wait_for(lambda: fetch.count == 2)
        fetch.gate.set()
        assert {each.result().value for each in found} == {"token-2"}
    assert fetch.count == 2


def test_C4_ahead_of_expiry_no_caller_waits(clock):
    fetch = Fetch()
    renewing = RenewingToken(fetch, clock.clock)
    renewing.token(None)
    clock.pass_time(850)
    fetch.gate = threading.Event()
    # The fetch hangs, and every caller has its token.
    assert [renewing.token(None).value for _ in range(5)] == ["token-1"] * 5
    fetch.gate.set()
    wait_for(lambda: renewing.token(None).value == "token-2")
    assert fetch.count == 2


def test_a_renewal_that_fails_ahead_of_expiry_fails_no_call(clock):
    fetch = Fetch()
    renewing = RenewingToken(fetch, clock.clock)
    renewing.token(None)
    clock.pass_time(850)
    fetch.error = TokenUnavailableError("down")
    assert renewing.token(None).value == "token-1"
    wait_for(lambda: renewing._failed is not None)
    assert renewing.token(None).value == "token-1"
    assert fetch.count == 2
    fetch.error = None
    clock.pass_time(2)
    renewing.token(None)
    wait_for(lambda: renewing.token(None).value == "token-3")


def test_a_failure_reaches_everybody_who_waited_and_is_not_repeated_at_once(clock):
    fetch = Fetch()
    fetch.gate = threading.Event()
    fetch.error = SessionEndedError("over")
    renewing = RenewingToken(fetch, clock.clock)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(renewing.token, None) for _ in range(8)]
        assert fetch.entered.wait(30)
        fetch.gate.set()
        errors = [each.exception() for each in found]
    assert {type(each) for each in errors} == {SessionEndedError}
    assert len({id(each) for each in errors}) == 8
    with pytest.raises(SessionEndedError):
        renewing.token(None)
    assert fetch.count == 1


def test_C9_a_fetch_that_breaks_does_not_tell_its_text(clock, caplog):
    fetch = Fetch()
    fetch.error = ValueError("refresh-token-text")
    with pytest.raises(TokenUnavailableError) as caught:
        RenewingToken(fetch, clock.clock).token(None)
    assert "refresh-token-text" not in "".join(traceback.format_exception(caught.value))
    assert "refresh-token-text" not in caplog.text


def test_C10_steps_of_the_system_clock_move_no_timer(clock):
    fetch = Fetch()
    renewing = RenewingToken(fetch, clock.clock)
    renewing.token(None)
    for step in (-10_000_000, 20_000_000):
        clock.wall_now += step
        assert renewing.token(None).value == "token-1"
    assert fetch.count == 1


def test_a_refused_token_does_not_come_back(clock):
    fetch = Fetch()
    renewing = RenewingToken(fetch, clock.clock)
    first = renewing.token(None)
    second = renewing.token(first)
    assert second != first
    # Another caller refused with the same token at the same time gets the new one.
    assert renewing.token(first) == second
    assert fetch.count == 2


def test_a_token_that_lives_no_time_is_fetched_every_time(clock):
    fetch = Fetch(lifetime=0.0)
    renewing = RenewingToken(fetch, clock.clock)
    assert [renewing.token(None).value for _ in range(3)] == ["token-1", "token-2", "token-3"]


# SessionTokenSource


def test_without_a_session_there_is_no_token(world, running, clock):
    connection = world.connection(running.port)
    source = SessionTokenSource(connection=connection, clock=clock.clock)
    with pytest.raises(NotLoggedInError, match="secure-client login USER"):
        source.token()


def test_C6_the_session_of_another_target_is_not_used(world, running, clock):
    connection = world.connection(running.port)
    file = save_session(connection, expires_in=600)
    session = file.load()
    file.save(Session("alice", "elsewhere:1", session.token, session.refresh_token, NOW + 1))
    source = SessionTokenSource(connection=connection, clock=clock.clock)
    with pytest.raises(NotLoggedInError):
        source.token()
    assert running.service.calls == []


def test_a_good_token_on_disk_is_used_as_it_is(world, running, clock):
    save_session(world.connection(running.port), expires_in=600)
    assert SessionTokenSource(clock=clock.clock).token().value == access_token(0)
    assert running.service.calls == []


def test_an_old_token_is_renewed_without_credentials_and_the_session_kept(world, running, clock):
    file = save_session(world.connection(running.port), expires_in=10)
    token = SessionTokenSource(clock=clock.clock).token()
    assert token.value == access_token(1)
    assert running.service.calls == [("Refresh", [])]
    kept = file.load()
    assert kept.token == token
    assert kept.refresh_token == "refresh-1"
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_refused_token_is_renewed(world, running, clock):
    save_session(world.connection(running.port), expires_in=600)
    source = SessionTokenSource(clock=clock.clock)
    first = source.token()
    assert source.token(refused=first).value == access_token(1)


def test_what_another_process_has_renewed_is_taken_over(world, running, clock):
    connection = world.connection(running.port)
    save_session(connection, expires_in=600)
    source = SessionTokenSource(clock=clock.clock)
    first = source.token()
    save_session(connection, expires_in=900, number=7, refresh="refresh-7")
    assert source.token(refused=first).value == access_token(7)
    assert running.service.calls == []


def test_a_token_bound_to_another_certificate_is_renewed(world, running, clock):
    connection = world.connection(running.port)
    file = save_session(connection, expires_in=600)
    session = file.load()
    bound = AccessToken(access_token(0, cnf={"x5t#S256": "another"}), NOW + 600)
    file.save(Session("alice", connection.target, bound, session.refresh_token, NOW + 1))
    assert SessionTokenSource(clock=clock.clock).token().value == access_token(1)


def test_a_dead_refresh_token_ends_the_session_with_advice(world, running, clock):
    save_session(world.connection(running.port), expires_in=0, refresh="refresh-dead")
    with pytest.raises(SessionEndedError, match="secure-client login alice") as caught:
        SessionTokenSource(clock=clock.clock).token()
    assert caught.value.cause.code is grpc.StatusCode.UNAUTHENTICATED
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "refresh-dead" not in "".join(shown.format())


def test_a_server_in_trouble_does_not_end_the_session(world, running, clock):
    file = save_session(world.connection(running.port), expires_in=0)
    running.service.fail["Refresh"] = [grpc.StatusCode.UNAVAILABLE]
    source = SessionTokenSource(clock=clock.clock)
    with pytest.raises(TokenUnavailableError):
        source.token()
    assert running.service.names() == ["Refresh"]
    assert file.load().refresh_token == "refresh-0"
    clock.pass_time(2)
    assert source.token().value == access_token(1)


def test_the_next_refresh_token_is_on_disk_before_the_access_token_is_used(
    world, running, clock, monkeypatch
):
    file = save_session(world.connection(running.port), expires_in=0)
    monkeypatch.setattr("secure_client.session.write_private", _fail)
    with pytest.raises(TokenUnavailableError, match="disk"):
        SessionTokenSource(clock=clock.clock).token()
    assert file.load().refresh_token == "refresh-0"


def _fail(path, data):
    from secure_client import ProfileError

    raise ProfileError("the disk is full", path)


def test_C3_many_threads_of_many_sources_refresh_once(world, running, clock):
    save_session(world.connection(running.port), expires_in=0)
    sources = [SessionTokenSource(clock=clock.clock) for _ in range(4)]
    with ThreadPoolExecutor(40) as pool:
        found = [pool.submit(each.token) for each in sources * 10]
        assert {each.result().value for each in found} == {access_token(1)}
    assert running.service.names() == ["Refresh"]


def test_processes_at_once_do_not_burn_the_refresh_token(world, running):
    now = time.time()
    running.service.now = now
    save_session(world.connection(running.port), expires_in=-10, now=now - 1000)
    script = "import secure_client; print(secure_client.SessionTokenSource().token().value)"
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        for _ in range(3)
    ]
    found = [process.communicate(timeout=60)[0].strip() for process in processes]
    # The fake's `iat` and `exp` are long past; its stated expiry is not.
    assert len(set(found)) == 1
    assert found[0]
    assert running.service.names() == ["Refresh"]


# WorkloadTokenSource


def test_a_workload_gets_its_token_without_credentials_and_keeps_it(world, running, clock):
    source = WorkloadTokenSource(world.connection(running.port), clock=clock.clock)
    assert [source.token().value for _ in range(3)] == [access_token(1)] * 3
    assert running.service.calls == [("IssueToken", [])]
    clock.pass_time(899)
    assert source.token().value == access_token(2)


def test_a_workload_that_is_refused_is_told_what_to_look_at(world, running, clock):
    running.service.fail["IssueToken"] = [grpc.StatusCode.PERMISSION_DENIED]
    with pytest.raises(TokenRefusedError, match="SPIFFE ID"):
        WorkloadTokenSource(world.connection(running.port), clock=clock.clock).token()


def test_files_that_cannot_be_used_are_named(world, running):
    connection = world.connection(running.port)
    connection.private_key.unlink()
    with pytest.raises(TokenUnavailableError, match=r"alice\.key does not exist"):
        WorkloadTokenSource(connection).token()
    assert running.service.calls == []


def test_C10_the_lifetime_is_the_issuers_whatever_this_clock_says(world, running, clock):
    clock.wall_now += 10_000_000
    source = WorkloadTokenSource(world.connection(running.port), clock=clock.clock)
    source.token()
    clock.elapsed_now += 600
    source.token()
    assert running.service.names() == ["IssueToken"]


def test_sources_are_not_pickled_and_show_no_token(world, running, clock, tmp_path):
    connection = world.connection(running.port)
    save_session(connection, expires_in=600)
    path = tmp_path / "token"
    path.write_text("very-secret")
    sources = [
        SessionTokenSource(clock=clock.clock),
        WorkloadTokenSource(connection, clock=clock.clock),
        FileTokenSource(path),
    ]
    for source in sources:
        text = source.token().value
        assert text not in repr(source)
        with pytest.raises(TypeError):
            pickle.dumps(source)
