"""The command line: what it prints, what it says when something is wrong, how it exits."""

import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from client_seen import until

from secure_api.users.v1 import user_service_pb2
from secure_base.terminal import escape
from secure_client.cli import main
from secure_client.cli.app import _hoisted
from secure_client.cli.rows import read_rows
from secure_client.cli.secrets import random_password
from secure_client.cli.state import UsageProblem
from secure_client.profile import Profile


@pytest.fixture
def cli(world, running, capsys, monkeypatch, tmp_path):
    """Run one command against the fake server; the clock of the fake is the real one."""
    running.service.now = time.time()
    certificate, key = world.client()
    monkeypatch.setenv("SECURE_CLIENT_TARGET", running.target)
    monkeypatch.setenv("SECURE_CLIENT_CA", str(world.ca))
    monkeypatch.setenv("SECURE_CLIENT_CERTIFICATE", str(certificate))
    monkeypatch.setenv("SECURE_CLIENT_PRIVATE_KEY", str(key))
    monkeypatch.chdir(tmp_path)

    def run(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return caught.value.code, out, err

    return run


@pytest.fixture
def logged_in(cli):
    assert cli("login", "alice", "--password-file", "-", stdin="right\n")[0] == 0
    return cli


# Logging in


def test_login_keeps_settings_and_session_privately(cli, running, world, monkeypatch):
    code, out, err = cli("login", "alice", "--password-file", "-", stdin="right\n")
    assert (code, out) == (0, "")
    assert "Logged in as alice" in err
    profile = Profile.named()
    assert profile.load()["ca"] == str(world.ca)
    assert stat.S_IMODE(profile.session.path.stat().st_mode) == 0o600
    for name in [name for name in os.environ if name.startswith("SECURE_CLIENT_")]:
        monkeypatch.delenv(name)
    code, out, err = cli("whoami")
    assert code == 0
    assert running.service.calls[-1] == (
        "WhoAmI",
        [f"Bearer {profile.session.load().token.value}"],
    )


def test_an_initial_password_is_replaced_at_once(cli, running):
    code, _, err = cli(
        "login", "alice", "--password-file", "-", "--new-password-file", "-", stdin="initial\nn3w\n"
    )
    assert code == 0
    assert "works for this one log-in" in err
    assert running.service.names() == ["Login", "Login"]


def test_a_wrong_password_is_one_sentence(cli, running):
    code, out, err = cli("login", "alice", "--password-file", "-", stdin="wrong\n")
    assert (code, out) == (1, "")
    assert "does not say which" in err
    assert Profile.named().session.load() is None


def test_passwords_are_never_read_from_a_pipe_unasked(cli, running):
    code, _, err = cli("login", "alice", stdin="right\n")
    assert code == 2
    assert "--password-file" in err
    assert running.service.calls == []


def test_log_in_calls_carry_no_token(logged_in, running):
    logged_in("login", "alice", "--password-file", "-", stdin="right\n")
    assert running.service.calls == [("Login", []), ("Login", [])]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_a_password_file_without_a_password_is_refused(cli, tmp_path, content):
    path = tmp_path / "password"
    path.write_bytes(content)
    code, _, err = cli("login", "alice", "--password-file", str(path))
    assert code == 2
    assert "holds no password" in err


def test_logout_ends_the_session_on_both_sides(logged_in, running):
    assert logged_in("logout")[0] == 0
    assert running.service.names()[-1] == "Logout"
    assert Profile.named().session.load() is None
    assert logged_in("logout")[0] == 0


def test_logout_keeps_the_session_while_the_server_cannot_end_it(logged_in, running):
    running.service.fail["Logout"] = [grpc.StatusCode.INTERNAL]
    assert logged_in("logout")[0] == 1
    assert Profile.named().session.load() is not None


def test_logout_of_a_session_that_is_over_is_done(logged_in, running):
    running.service.fail["Logout"] = [grpc.StatusCode.UNAUTHENTICATED] * 2
    assert logged_in("logout")[0] == 0
    assert Profile.named().session.load() is None


# Tokens


def test_token_prints_the_token_and_nothing_else(logged_in):
    code, out, err = logged_in("token")
    assert (code, err) == (0, "")
    assert out == Profile.named().session.load().token.value + "\n"


def test_token_without_a_session_says_what_to_do(cli):
    code, out, err = cli("token")
    assert (code, out) == (2, "")
    assert "secure-client login USER" in err


def test_who_is_interrupted_while_the_session_is_renewed_keeps_it(cli, running):
    """A refresh token works once: the command waits for the answer with the next one."""
    running.service.lifetime = 1
    assert cli("login", "alice", "--password-file", "-", stdin="right\n")[0] == 0
    running.service.gate = threading.Event()
    with subprocess.Popen(
        # A background shell job ignores SIGINT.
        ["env", "--default-signal=INT", Path(sys.executable).with_name("secure-client"), "token"],
        stderr=subprocess.PIPE,
    ) as command:
        until(lambda: "Refresh" in running.service.names())
        command.send_signal(signal.SIGINT)
        time.sleep(0.2)  # otherwise it would have ended by now
        running.service.gate.set()
        _, err = command.communicate(timeout=30)
        assert command.returncode == 130
    assert b"Traceback" not in err
    assert Profile.named().session.load().refresh_token in running.service.good_refresh


def test_a_workload_gets_its_token_without_a_session(cli, running):
    code, out, _ = cli("tokens", "issue", "--json")
    assert code == 0
    assert json.loads(out)["access_token"]
    assert running.service.calls == [("IssueToken", [])]


def test_introspect_reads_lines(logged_in):
    code, out, _ = logged_in("tokens", "introspect", "a", "-", stdin="b\n\nc\n")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["1", "yes"],
        ["2", "yes"],
        ["3", "yes"],
    ]


# Users


def test_a_user_gets_a_random_password_that_is_shown_once(logged_in, running):
    code, out, _ = logged_in("users", "create", "bob", "--role", "a", "--role", "b", "--json")
    assert code == 0
    shown = json.loads(out)
    sent = running.users.requests[-1]
    assert shown["initial_password"] == sent.password
    assert shown["user"]["name"] == "users/bob"
    assert list(sent.user.roles) == ["a", "b"]


def test_a_given_password_is_not_shown(logged_in, running):
    code, out, err = logged_in(
        "users", "create", "bob", "--password-file", "-", stdin="s3cret-pw\n"
    )
    assert code == 0
    assert running.users.requests[-1].password == "s3cret-pw"
    assert "s3cret-pw" not in out + err


def test_random_passwords_have_150_bits_and_no_user_name_in_them():
    found = {random_password("a") for _ in range(50)}
    assert len(found) == 50
    for each in found:
        assert len(each.replace("-", "")) == 30
        assert "a" not in each


def test_update_names_exactly_what_the_options_name(logged_in, running):
    logged_in("users", "update", "bob", "--email", "", "--state", "disabled")
    sent = running.users.requests[-1]
    assert list(sent.update_mask.paths) == ["email", "state"]
    assert sent.user.state == user_service_pb2.User.STATE_DISABLED
    logged_in("users", "update", "bob", "--role", "")
    sent = running.users.requests[-1]
    assert list(sent.update_mask.paths) == ["roles"]
    assert list(sent.user.roles) == []
    assert logged_in("users", "update", "bob")[0] == 2


def test_O3_all_pages_are_listed_and_control_characters_escaped(logged_in):
    code, out, _ = logged_in("users", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "NAME",
        *(f"u{number}" for number in range(6)),
    ]
    assert r"a\x1b[31m\u202e\nb" in out
    assert all(each.isprintable() or each == "\n" for each in out)
    _, out, _ = logged_in("users", "list", "--json")
    assert out.isascii()
    assert len(json.loads(out)) == 6


def test_import_reports_bad_rows_by_line_and_exits_with_1(logged_in, running, tmp_path):
    path = tmp_path / "users.csv"
    path.write_text('user_id,email,display_name,roles\ngood,,"A\nB",a b\nbad,,,\n')
    code, out, _ = logged_in("users", "import", str(path))
    assert code == 1
    assert out.splitlines()[-1].split() == ["4", "bad", "INVALID_ARGUMENT", r"no\x07good"]
    assert list(running.users.requests[0].user.roles) == ["a", "b"]


def test_watch_goes_on_after_a_break_and_says_each_change_once(logged_in, running):
    code, out, err = logged_in("users", "watch", "--json")
    assert code == 1
    shown = [json.loads(line)["change"] for line in out.splitlines()]
    assert shown == ["CHANGE_WATCHING", "CHANGE_CREATED"]
    assert [each.resume_token for each in running.users.requests] == ["", "t1"]
    assert "does not allow this to alice" in err


# Rows


def rows(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return read_rows(str(path))


def test_json_lines_are_read(tmp_path):
    found = rows(
        tmp_path,
        "u.jsonl",
        '{"user_id": "a", "roles": ["x", "y"]}\n\n{"user_id": "b", "roles": "x;y"}',
    )
    assert [(each.line, each.request.user_id) for each in found] == [(1, "a"), (3, "b")]
    assert [list(each.request.user.roles) for each in found] == [["x", "y"], ["x", "y"]]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("u.csv", "", "user_id is missing"),
        ("u.csv", "user_id,pasword\n", "'pasword' is no column"),
        ("u.csv", "user_id,email\na\n", "line 2"),
        ("u.csv", "user_id\na,b\n", "line 2"),
        ("u.csv", 'user_id\n"a', "line 2"),
        ("u.jsonl", "[]", "no JSON object"),
        ("u.jsonl", '{"user_id": 5}', "must be a text"),
        ("u.jsonl", '{"user_id": "a", "x": "y"}', "'x' is no column"),
        ("u.txt", "user_id\na\n", "csv or"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_line(tmp_path, name, text, says):
    with pytest.raises(UsageProblem, match=says):
        rows(tmp_path, name, text)


# What goes wrong


def test_no_session_and_no_certificate_that_would_do(cli, running):
    running.service.fail["WhoAmI"] = [grpc.StatusCode.UNAUTHENTICATED]
    code, _, err = cli("whoami")
    assert code == 1
    assert "secure-client login USER" in err


def test_a_session_that_is_refused(logged_in, running):
    running.service.fail["WhoAmI"] = [grpc.StatusCode.UNAUTHENTICATED] * 2
    code, _, err = logged_in("whoami")
    assert code == 1
    assert "secure-client login alice" in err


def test_no_server(cli):
    with socket.socket() as taken:
        # Bound and not listening: the port is taken, and no server answers.
        taken.bind(("127.0.0.1", 0))
        code, _, err = cli("--target", f"127.0.0.1:{taken.getsockname()[1]}", "keys")
    assert code == 1
    assert "Nothing listens on" in err


def test_another_ca(cli, tmp_path):
    from secure_tls import Authority

    other = tmp_path / "other.pem"
    other.write_bytes(Authority.create("example.org").certificate_pem)
    code, _, err = cli("keys", "--ca", str(other))
    assert code == 1
    assert "not issued by the CA in" in err


def test_another_name(cli):
    code, _, err = cli("keys", "--server-name", "other.example")
    assert code == 1
    assert "for another name" in err


def test_a_client_certificate_that_the_server_does_not_know(cli, tmp_path):
    from secure_tls import Authority

    issued = Authority.create("example.org").issue_client("mallory")
    (tmp_path / "m.pem").write_bytes(issued.certificate_pem)
    (tmp_path / "m.key").touch(mode=0o600)
    (tmp_path / "m.key").write_bytes(issued.private_key_pem)
    code, _, err = cli("keys", "--certificate", "m.pem", "--private-key", "m.key")
    assert code == 1
    assert "do not accept the client certificate, here m.pem" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "--ca", "missing.pem"),
        ("keys", "--certificate", "only-half.pem"),
        ("keys", "--target", "http://localhost:1"),
        ("keys", "--profile", "../x"),
        ("users", "import", "missing.csv"),
        ("users", "password"),
        ("nonsense",),
        ("users", "update", "bob", "--state", "odd"),
        ("tokens", "revoke"),
    ],
)
def test_what_is_wrong_here_exits_with_2_and_a_sentence(cli, arguments, running):
    code, out, err = cli(*arguments)
    assert code == 2
    assert out == ""
    assert err.strip()
    assert running.service.calls == []


def test_C11_a_readable_session_is_refused(logged_in):
    Profile.named().session.path.chmod(0o644)
    code, _, err = logged_in("whoami")
    assert code == 2
    assert "chmod 600" in err


def test_C6_the_session_stays_with_its_target(logged_in, running):
    port = running.port
    code, _, _ = logged_in("whoami", "--target", f"127.0.0.1:{port}")
    assert code == 0
    assert running.service.calls[-1] == ("WhoAmI", [])


def test_texts_of_the_server_are_escaped():
    assert escape("a\x1b]0;x\x07\r\n\u2028\u202e\x9b é 日本") == (
        r"a\x1b]0;x\x07\r\n\u2028\u202e\x9b é 日本"
    )


def test_global_options_may_stand_anywhere():
    assert _hoisted(["users", "list", "--json", "--target", "a:1"]) == [
        "--json",
        "--target",
        "a:1",
        "users",
        "list",
    ]
    assert _hoisted(["x", "--ca=y", "--", "--json"]) == ["--ca=y", "x", "--", "--json"]
    assert _hoisted(["x", "--target"]) == ["--target", "x"]
