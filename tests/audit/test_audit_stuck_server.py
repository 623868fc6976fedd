"""O2 for the shipped server: its log and its audit go into one pipe, which no process reads."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from secure_server.sections import TokensSection
from secure_server.shipped_policy import shipped_policy
from support.house import call
from support.running import Installation, ServerProcess, bearer

OPEN_METHOD = "/secure_api.tokens.v1.TokenService/GetKeySet"
_GRACE = 1
_CALLS = 100


@contextmanager
def stuck_server(root: Path) -> Iterator[tuple[Installation, ServerProcess, int]]:
    """Run a server whose output is a pipe of 4 KiB; yield its reading end as well."""
    import secure_server

    shipped = Path(secure_server.__file__).with_name("policy.json").read_text()
    options = {
        "audit_condition": "ON_DENY_AND_ALLOW",
        "audit_loggers": [{"name": "stdout_logger"}],
    }
    (root / "policy.json").write_text(
        json.dumps(json.loads(shipped) | {"audit_logging_options": options})
    )
    installation = Installation(
        root,
        settings='[policy]\nfile = "policy.json"\n',
        environment={"SECURE_SERVER_SERVER__GRACE": str(_GRACE)},
    )
    ready = root / "ready"
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [*installation._command("serve"), "--ready-file", str(ready)],
        cwd=root,
        env=installation._environment,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    server = ServerProcess(process, ready, root / "no.log")
    try:
        server.wait_until_ready()
        yield installation, server, reader
    finally:
        server.kill()
        os.close(reader)


def read(reader: int, text: bytearray) -> None:
    while data := os.read(reader, 65536):
        text.extend(data)


def assert_goes_on(channel: grpc.Channel, calls: int) -> None:
    """Allowed and refused calls are still answered."""
    for _ in range(calls):
        assert call(channel, method=OPEN_METHOD, request=b"", timeout=10).served
        refused = call(channel, metadata=bearer("no-token"), timeout=10)
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED


def test_O2_it_ends_within_its_grace_though_no_process_reads(tmp_path: Path) -> None:
    with stuck_server(tmp_path) as (installation, server, _reader):
        with installation.client("admin").channel(server.address) as channel:
            assert_goes_on(channel, 20)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert time.monotonic() - begun < _GRACE + 5


def test_O2_calls_go_on_and_a_late_reader_gets_every_whole_line(tmp_path: Path) -> None:
    text = bytearray()
    with stuck_server(tmp_path) as (installation, server, reader):
        with installation.client("admin").channel(server.address) as channel:
            assert_goes_on(channel, _CALLS)
        reading = threading.Thread(target=read, args=(reader, text))
        reading.start()
        assert server.stop() == 0
        reading.join(10)
    lines = [json.loads(line) for line in bytes(text).splitlines()]
    told = [line["grpc_audit_log"] for line in lines if "grpc_audit_log" in line]
    assert [record["authorized"] for record in told] == [True, False] * _CALLS
    assert {record["policy_name"] for record in told} == {shipped_policy().name, ""}
    logged = [line["event"] for line in lines if "event" in line]
    assert logged.count("call refused") == _CALLS
    assert (logged[-1], TokensSection().issuer in str(lines)) == ("stopped", False)


LOG = """
import os, sys, threading, time
from secure_server import logs

logs.set_up_logging("json", "info")
log = logs.logger("test")
for number in range(int(sys.argv[1])):
    log.info("line", number=number)
print(logs.lost_lines(), flush=True)
"""


@pytest.mark.parametrize(("lines", "lost"), [(100, 0), (12_000, 2000)])
def test_a_log_without_a_reader_blocks_no_call_and_counts_dropped_lines(
    lines: int, lost: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOG, str(lines)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        counted = int(process.stdout.readline())  # while no process reads the log
        # What the pipe took, and the thread in its hand, made room for others.
        assert max(0, lost - 1000) <= counted <= lost
        logged = process.stderr.read().splitlines()
        assert process.wait(10) == 0
    assert len(logged) == lines - counted
    assert [json.loads(line)["number"] for line in logged] == list(range(len(logged)))
