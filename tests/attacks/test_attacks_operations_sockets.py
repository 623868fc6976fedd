"""Operations: silent sockets, more than the server may have descriptors."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from secure_server.descriptors import CONNECTIONS, RESERVE
from stress.sockets import HTTP, flood, http_address, silent_sockets
from support.door import wait_until
from support.running import DEADLINE, Running, bearer, running_server

LIMIT = 300


@pytest.mark.parametrize("port", ["gRPC", "HTTP"])
def test_M10_silent_sockets_take_neither_the_pages_nor_a_core_nor_the_log(
    tmp_path: Path, port: str
) -> None:
    """The pages answer while they are open, and a call that reads and writes works afterwards."""
    with running_server(tmp_path, settings=HTTP, before=f"ulimit -n {LIMIT}") as running:
        target = running.address if port == "gRPC" else http_address(running.server)
        # The first call of all opens the store's files: after them, or while there is no room.
        figures = flood(running, target, sockets=2 * LIMIT, seconds=4)
    assert figures.failures == []
    assert figures.core_percent < 50
    assert figures.log_bytes < 64 * 1024
    assert figures.descriptors < LIMIT


def test_M10_under_silent_sockets_the_store_can_open_its_files(tmp_path: Path) -> None:
    """Calls over an older connection, so many that the store opens more connections."""
    with (
        running_server(tmp_path, before=f"ulimit -n {LIMIT}") as running,
        running.admin.channel(running.address) as channel,
        ThreadPoolExecutor(32) as callers,
    ):
        token = running.admin_token()
        list_users = channel.unary_unary("/secure_api.users.v1.UserService/ListUsers")

        def call(_: int) -> None:
            list_users(b"", metadata=bearer(token), timeout=DEADLINE)

        call(0)
        with silent_sockets(running.address, 2 * LIMIT):
            list(callers.map(call, range(640)))  # raises what one of them raised


def lines(running: Running, event: str) -> list[dict[str, object]]:
    """The lines of the log about an event, once there are some: a thread writes them."""

    def found() -> list[dict[str, object]]:
        logged = [json.loads(line) for line in running.server.log.splitlines()]
        return [line for line in logged if event in line["event"]]

    wait_until(lambda: bool(found()))
    return found()


def test_M10_the_limit_of_descriptors_is_raised_at_the_start_and_logged(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running_server(tmp_path, before="ulimit -Sn 256") as running:
        now = resource.prlimit(running.server.process.pid, resource.RLIMIT_NOFILE)
        assert now == (hard, hard)
        (line,) = lines(running, "descriptors")
    if hard < RESERVE + CONNECTIONS:
        pytest.skip("the machine's own limit is low")
    assert line["level"] == "info"
    assert line["descriptors"] == hard


def test_M10_a_limit_that_is_too_low_is_a_warning_with_the_number_and_the_remedy(
    tmp_path: Path,
) -> None:
    with running_server(tmp_path, before=f"ulimit -n {LIMIT}") as running:
        (line,) = lines(running, "descriptors")
    assert line["level"] == "warning"
    assert line["descriptors"] == LIMIT
    assert line["connections"] == (LIMIT - RESERVE) // 2
    assert "LimitNOFILE=20128" in str(line["event"])


_WITHOUT_DESCRIPTORS = """
import os, resource, sys
from secure_server.app.http import HTTPServer, json_page
from secure_server.logs import set_up_logging

set_up_logging("json", "info")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
server = HTTPServer("127.0.0.1:0", {"/": lambda: json_page({})})
server.start()
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    print(server.address, flush=True)
sys.stdin.readline()
for descriptor in held:
    os.close(descriptor)
print(flush=True)
sys.stdin.readline()
server.stop()
"""


def test_the_page_waits_where_no_descriptor_is_left_and_answers_when_there_is_one(
    tmp_path: Path,
) -> None:
    from benchmarks.machine import cpu_seconds

    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-c", _WITHOUT_DESCRIPTORS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        used = cpu_seconds(process.pid)
        with httpx.Client(trust_env=False, base_url=f"http://{address}") as client:
            with pytest.raises(httpx.ReadTimeout):
                client.get("/", timeout=2)
            assert cpu_seconds(process.pid) - used < 1.0
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            assert client.get("/", timeout=DEADLINE).status_code == 200
        process.stdin.close()
    assert process.returncode == 0
    written = [json.loads(line) for line in log.read_text().splitlines()]
    assert 1 <= len(written) <= 7
    assert written[0]["logger"] == "cheroot"
    assert "Too many open files" in written[0]["event"]
