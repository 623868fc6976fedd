"""What libraries write to standard error is in the log: one form, one place, bounded rates."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from h2.events import RemoteSettingsChanged

from secure_server import descriptors
from secure_server.throttle import Throttle
from support.door import wait_until
from support.raw import context_from_files, frame, raw_client
from support.running import Installation, running_server

GOAWAY = 0x7


@pytest.fixture(autouse=True)
def silent_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's command line silences gRPC in its process; servers must not inherit that."""
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)


def test_a_client_that_makes_grpc_write_lines_cannot_flood_the_log(tmp_path: Path) -> None:
    """GOAWAY with words of the client's own: gRPC's core writes them to standard error."""
    with running_server(tmp_path) as running:
        admin = running.admin
        context = context_from_files(admin.certificate, admin.private_key, admin.ca)
        goodbye = frame(GOAWAY, 0, 0, struct.pack(">II", 0, 11) + b"words of the client")
        with contextlib.ExitStack() as open_ones:
            for _ in range(20):
                client = open_ones.enter_context(raw_client(running.address, context))
                client.wait_for(RemoteSettingsChanged)
                client.send(goodbye * 5)
            wait_until(lambda: running.server.log.lower().count("goaway") >= 5)
            running.admin_token()
        running.server.stop()
        lines = [json.loads(line) for line in running.server.log.splitlines()]  # all of it is JSON
    said = [line for line in lines if line.get("logger") == "grpc"]
    assert any("goaway" in line["event"].lower() for line in said)
    assert any("more like it" in line["event"] for line in said), said
    assert len(said) <= 12


_SAYS_A_LOT = """
import ctypes, os, sys, threading, time, warnings
from secure_server.logs import set_up_logging
from secure_server.standard_error import captured

set_up_logging("json", "info")
with captured():
    print("said by", "print\\nin two lines", file=sys.stderr)
    for number in range(1234):
        os.write(2, b"E1128 04:28:46.613680   25326 some_file.cc:164] number %d\\n" % number)
    thread = threading.Thread(target=lambda: 1 / 0, name="careless")
    thread.start()
    thread.join()
    warnings.warn("careful")
    class Careless:
        def __del__(self):
            raise ValueError("in del")
    del Careless
    MORE
"""


def say_a_lot(more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            _SAYS_A_LOT.replace("del Careless", "Careless()").replace("MORE", more),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("GRPC_")} | environment,
    )


def test_writes_to_standard_error_become_throttled_log_lines() -> None:
    done = say_a_lot("pass")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    events = [line["event"] for line in lines]
    assert events[:2] == ["said by print", "in two lines"]
    assert [each for each in events if each.startswith("number")] == [
        f"number {n}" for n in range(5)
    ]
    more = next(line for line in lines if line["event"] == "and 1,229 more like it")
    assert (more["logger"], more["like"], more["level"]) == ("grpc", "some_file.cc:164", "error")
    thread = next(line for line in lines if "careless" in line["event"])
    assert "ZeroDivisionError" in thread["exception"]
    assert any("UserWarning: careful" in event for event in events)
    ignored = next(line for line in lines if "Careless.__del__" in line["event"])
    assert "in del" in ignored["exception"]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_the_stacks_of_a_process_that_dies_reach_standard_error(number: signal.Signals) -> None:
    done = say_a_lot(f"time.sleep(0.2); ctypes.CDLL(None)['raise']({int(number)})")
    assert done.returncode == -number
    assert "Fatal Python error" in done.stderr
    assert 'File "<string>"' in done.stderr


def test_with_grpc_tracing_standard_error_is_not_redirected() -> None:
    done = say_a_lot("pass", GRPC_VERBOSITY="error")
    assert done.stderr.count("some_file.cc:164] number") == 1234


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ("pass", 0),
        # Written by a thread that holds the interpreter: nothing can read the pipe meanwhile.
        ("[ctypes.PyDLL(None).write(2, b'x' * 4096, 4096) for _ in range(10000)]", 0),
        ("ctypes.CDLL(None)['raise'](11)", -11),
    ],
    ids=["end", "flood", "crash"],
)
def test_an_unread_standard_error_blocks_nothing(more: str, status: int) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _SAYS_A_LOT.replace("MORE", more)],
        stderr=writing,
        timeout=60,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("GRPC_")},
    )
    os.close(reading)
    os.close(writing)
    assert done.returncode == status
    assert time.monotonic() - begin < 30


def test_the_first_lines_of_each_kind_are_admitted_and_the_rest_counted() -> None:
    now, counted = 0.0, dict[object, int]()
    throttle = Throttle(most=2, seconds=10, clock=lambda: now)

    def admit(kind: object) -> bool:
        return throttle.admit(kind, lambda count: counted.update({kind: count}))  # type: ignore[arg-type]

    assert [admit("a") for _ in range(5)] == [True, True, False, False, False]
    assert [admit("b") for _ in range(2)] == [True, True]
    now = 9.9
    assert not admit("a")
    assert counted == {}
    now = 10.0
    assert admit("a")
    assert counted == {"a": 4}
    throttle.tell(at_once=True)


def test_the_lines_are_bounded_for_any_number_of_kinds() -> None:
    throttle = Throttle(most=2, seconds=10, clock=lambda: 0.0)
    counted: list[int] = []
    admitted = sum(throttle.admit(number, counted.append) for number in range(10_000))
    assert admitted < 200
    throttle.tell(at_once=True)
    assert admitted + sum(counted) == 10_000


def test_a_finalizer_may_log_while_a_line_is_counted() -> None:
    """The garbage collector runs at any time, and a finalizer may log."""
    import threading

    admitted: list[bool | None] = []

    def now() -> float:
        if not admitted:
            admitted.append(None)
            admitted.append(throttle.admit("found", lambda _: None))
        return 0.0

    throttle = Throttle(clock=now)
    thread = threading.Thread(target=throttle.tell, daemon=True)
    thread.start()
    thread.join(5)
    assert admitted == [None, True]


def test_held_back_lines_are_reported_although_no_line_follows() -> None:
    import threading

    told = threading.Event()
    throttle = Throttle(most=1, seconds=0.05)
    assert throttle.admit("a", lambda _: told.set())
    assert not throttle.admit("a", lambda _: told.set())
    assert told.wait(10)


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_server_without_standard_error_serves(tmp_path: Path, closed: str) -> None:
    installation = Installation(tmp_path)
    installation.bootstrap()
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "secure_server", "serve", "--config", installation.config]
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command, "--ready-file", ready]
    )
    try:
        wait_until(lambda: ready.exists() or process.poll() is not None, 30)
        assert process.poll() is None
        files = Path(f"/proc/{process.pid}/fd")
        if files.exists():  # and no file or connection of the server is standard error
            assert (files / "2").readlink().name != "server.db"
            assert not str((files / "2").readlink()).startswith(("socket:", "anon_inode:"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_host_without_standard_error_imports_the_guard(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = (
        "import sys, secure_server; secure_server.Guard; from secure_server import logs; "
        f"logs.logger('x').warning('said'); open({str(told)!r}, 'w').write(str(sys.stderr))"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code],
        timeout=60,
        check=False,
        stdout=subprocess.PIPE,
    )
    assert (done.returncode, done.stdout, told.read_text()) == (0, b"", "None")


@pytest.mark.parametrize("error", [PermissionError(1, "not permitted"), ValueError("too much")])
def test_a_limit_that_cannot_be_raised_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, log: list[dict[str, object]], error: Exception
) -> None:
    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    descriptors.raise_limit()
    (line,) = log
    assert (line["log_level"], line["reason"]) == ("warning", str(error))
