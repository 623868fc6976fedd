"""/livez and /readyz, the stall that they are about, and a stop that nothing holds up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from secure_server.app.lifecycle import Server
from stress.revoke_client import store_of
from support.door import wait_until
from support.house import House, call
from support.pages import get_page
from support.running import Installation, ServerProcess, running_server

ROOT = Path(__file__).resolve().parents[2]
STUCK = "/a.Stuck/Method"
CHECK = "/grpc.health.v1.Health/Check"


class Stuck(grpc.GenericRpcHandler):
    """Waits where grpcio looks up handlers: on the serving thread, by its design."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method == STUCK:
            self.wait_in_a_servicer_s_code()
        return None

    def wait_in_a_servicer_s_code(self) -> None:
        self.begun.set()
        self.release.wait(60)


class Probed:
    """A server with a handler that can be stuck, and its pages."""

    def __init__(self, house: House, *, grace: float = 1.0, **changes: Any) -> None:
        sections = {"http": {"listen": "127.0.0.1:0"}, "server": {"grace": grace}} | changes
        config = house.config.model_copy(
            update={
                name: getattr(house.config, name).model_copy(update=values)
                for name, values in sections.items()
            }
        )
        self.house = house
        self.server = Server(config)
        self.stuck = Stuck()
        self.server._listeners._current.built.server.add_generic_rpc_handlers((self.stuck,))

    def page(self, path: str) -> tuple[int, Any]:
        reply = get_page(self.server.http_address, path)
        return reply.status_code, reply.json()

    def sample(self, name: str) -> float:
        text = get_page(self.server.http_address, "/metrics").text
        (value,) = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        ]
        return float(value)

    def channel(self) -> grpc.Channel:
        issued = self.house.admin.issued
        credentials = grpc.ssl_channel_credentials(
            self.house.authority.certificate_pem, issued.private_key_pem, issued.certificate_pem
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(self.server.address, credentials, options)


@contextmanager
def probed(house: House, **settings: Any) -> Iterator[Probed]:
    probed = Probed(house, **settings)
    try:
        yield probed
    finally:
        probed.stuck.release.set()
        probed.server.stop()


def test_a_stalled_serving_thread_is_503_on_livez_and_in_the_metrics_and_recovers(
    house: House, log: list[dict[str, object]]
) -> None:
    """With the times as they are: a stall is five seconds."""
    with probed(house) as at:
        at.server.start()
        with at.channel() as channel:
            assert call(channel, method=CHECK).code is grpc.StatusCode.OK
            assert at.page("/livez") == (200, {"status": "ALIVE"})
            assert at.page("/readyz") == (200, {"status": "READY", "warnings": []})
            assert at.sample("secure_grpc_serving_thread_stalled_seconds") == 0
            future = channel.unary_unary(STUCK).future(b"", timeout=60)
            wait_until(lambda: at.page("/livez")[0] == 503, 20)
            status, page = at.page("/livez")
            assert (status, page["status"]) == (503, "STALLED")
            assert page["stalled_seconds"] >= 5
            (reason,) = page["reasons"]
            assert re.fullmatch(
                r"The serving thread has not moved for \d+ seconds: no call is answered\. Restart "
                r"the server; its log has the stack of every thread\.",
                reason,
            )
            status, page = at.page("/readyz")
            assert (status, len(page["reasons"])) == (503, 1)
            assert at.sample("secure_grpc_serving_thread_stalled_seconds") >= 5
            assert at.sample("secure_grpc_serving_thread_stalls_total") == 1
            # The pages know it a moment before the log.
            wait_until(lambda: any("is stalled" in str(line["event"]) for line in log))
            (line,) = [line for line in log if "is stalled" in str(line["event"])]
            assert "in wait_in_a_servicer_s_code" in str(line["stack"])
            at.stuck.release.set()
            wait_until(lambda: at.page("/livez")[0] == 200)
            assert at.page("/readyz") == (200, {"status": "READY", "warnings": []})
            assert at.sample("secure_grpc_serving_thread_stalled_seconds") == 0
            assert at.sample("secure_grpc_serving_thread_stalls_total") == 1
            with pytest.raises(grpc.RpcError):
                future.result()
            assert call(channel, method=CHECK).code is grpc.StatusCode.OK


# The exception of a pool that accepts no more work ends grpcio's serving thread.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_serving_thread_that_has_ended_is_503_for_good(
    house: House, log: list[dict[str, object]]
) -> None:
    with probed(house) as at:
        at.server.start()
        with at.channel() as channel:
            assert call(channel, method=CHECK).code is grpc.StatusCode.OK
            at.server._door.shutdown()
            unanswered = channel.unary_unary(CHECK).future(b"", timeout=60)
            wait_until(lambda: at.page("/livez")[0] == 503, 20)
            status, page = at.page("/livez")
            assert (status, page["status"]) == (503, "STALLED")
            (reason,) = page["reasons"]
            assert reason == (
                "The serving thread has ended: no call is answered. Restart the server; its log "
                "has the exception that ended the thread."
            )
            assert at.page("/readyz")[1]["reasons"] == page["reasons"]
            assert at.sample("secure_grpc_serving_thread_stalled_seconds") >= 5
            assert at.sample("secure_grpc_serving_thread_stalls_total") == 1
            unanswered.cancel()
            begun = time.monotonic()
            at.server.stop()
            assert time.monotonic() - begun < 5
    assert len([line for line in log if "was not stopped" in str(line["event"])]) == 1


def test_a_server_replaced_by_a_new_certificate_is_no_stall(
    house: House, log: list[dict[str, object]]
) -> None:
    with probed(house, server={"grace": 1.0, "retire": 0.2}) as at:
        at.server.start()
        watchdog = at.server._guard.watchdog
        with at.channel() as channel:
            assert call(channel, method=CHECK).code is grpc.StatusCode.OK
        (before,) = watchdog.threads
        at.server._listeners.rotate()
        wait_until(lambda: before not in watchdog.threads, 20)
        assert at.page("/livez") == (200, {"status": "ALIVE"})
        assert (watchdog.stalls, watchdog.has_ended) == (0, False)
        with at.channel() as channel:
            assert call(channel, method=CHECK).code is grpc.StatusCode.OK
    assert [line for line in log if "was not stopped" in str(line["event"])] == []


def test_readyz_says_why_it_is_not_ready(house: House) -> None:
    with probed(house) as at:
        at.server._http.start()  # it answers while the server does not serve yet
        status, page = at.page("/readyz")
        assert (status, page["status"]) == (503, "NOT_READY")
        assert page["reasons"] == ["The server is starting; it answers calls in a moment."]
        assert at.page("/livez") == (200, {"status": "ALIVE"})
        assert at.page("/healthz") == (503, {"status": "NOT_SERVING"})
        at.server._http.start = lambda: None  # type: ignore[method-assign]
        at.server.start()
        assert at.page("/readyz") == (200, {"status": "READY", "warnings": []})

        # The store cannot be read any more.
        database = at.server._service.revocations._database
        at.server._service.revocations._max_staleness = 0.0
        assert not at.server._service.revocations.is_current
        assert database is not None
        status, page = at.page("/readyz")
        assert status == 503
        assert "max_feed_staleness" in page["reasons"][0]
        assert at.page("/livez") == (200, {"status": "ALIVE"})


def test_readyz_reports_a_missing_or_replaced_file_of_the_store(tmp_path: Path) -> None:
    with running_server(tmp_path, settings='\n[http]\nlisten = "127.0.0.1:0"\n') as running:
        found = re.search(r'"http": ?"([^"]+)"', running.server.log)
        assert found is not None

        def ready() -> tuple[int, Any]:
            reply = get_page(found[1], "/readyz")
            return reply.status_code, reply.json()

        assert ready() == (200, {"status": "READY", "warnings": []})
        store = store_of(running.installation)
        away = store.rename(store.with_name("away.db"))
        status, page = ready()
        (reason,) = page["reasons"]
        assert status == 503
        assert reason.startswith("The file of the store is gone, or another is in its place")
        store.write_bytes(away.read_bytes())  # another file, with what the first one had
        assert ready() == (status, page)
        away.replace(store)
        assert ready() == (200, {"status": "READY", "warnings": []})


def test_readyz_says_that_it_is_stopping_while_calls_finish(house: House) -> None:
    with probed(house, grace=3.0) as at:
        at.server.start()
        release = threading.Event()
        at.server._service.servicers.changes.close = lambda: release.wait(30)  # type: ignore[method-assign]
        stop = threading.Thread(target=at.server.stop)
        stop.start()
        try:
            wait_until(lambda: at.page("/readyz")[0] == 503)
            assert at.page("/readyz")[1]["reasons"] == [
                "The server is stopping: it takes no new calls."
            ]
            assert at.page("/livez") == (200, {"status": "ALIVE"})
        finally:
            release.set()
            stop.join()


# What is released at the end finds that everything was let go of: grpcio's thread ends by that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_grace_bounds_a_stop_while_the_serving_thread_is_stalled(
    house: House, log: list[dict[str, object]]
) -> None:
    with probed(house, grace=1.0) as at:
        at.server.start()
        with at.channel() as channel:
            assert call(channel, method=CHECK).code is grpc.StatusCode.OK
            future = channel.unary_unary(STUCK).future(b"", timeout=60)
            assert at.stuck.begun.wait(10)
            begun = time.monotonic()
            at.server.stop()
            assert time.monotonic() - begun < 5
            assert [line for line in log if "did not stop" in str(line["event"])]
            at.stuck.release.set()
            with pytest.raises(grpc.RpcError):
                future.result(30)


STUCK_PROCESS = """
import sys, threading
import grpc
from secure_server import cli
from secure_server.app import lifecycle

class Stuck(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/a.Stuck/Method":
            print("stuck", flush=True)
            threading.Event().wait()

build = lifecycle.Server._build_listener

def with_it(self):
    built = build(self)
    built.server.add_generic_rpc_handlers((Stuck(),))
    return built

lifecycle.Server._build_listener = with_it
# And a thread of a library's that never ends, for which Python would wait at its own end.
threading.Thread(target=threading.Event().wait).start()
cli.main()
"""


def test_O4_SIGTERM_ends_a_process_whose_threads_never_end(tmp_path: Path) -> None:
    installation = Installation(tmp_path, settings='[http]\nlisten = "127.0.0.1:0"\n')
    ready, log = tmp_path / "ready", tmp_path / "log"
    config = ["serve", "--config", str(installation.config), "--ready-file", str(ready)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", STUCK_PROCESS, *config],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"SECURE_SERVER_SERVER__GRACE": "2"},
        )
    server = ServerProcess(process, ready, log)
    try:
        server.wait_until_ready()
        with installation.client("admin").channel(server.address) as channel:
            future = channel.unary_unary(STUCK).future(b"", timeout=60)
            wait_until(lambda: "stuck" in server.log, 30)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - begun < 2 + 8
            with pytest.raises(grpc.RpcError):
                future.result()
        events = {line["event"]: line for line in map(json.loads, json_lines(server.log))}
        assert "a server did not stop: its serving thread is stalled" in events
        assert "stack" in events["threads that do not end are left behind"]
    finally:
        server.kill()


def json_lines(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("{")]


def test_the_probes_of_the_document_are_pages_of_the_server(house: House) -> None:
    document = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)
    probes = re.findall(r"(\w+Probe):\n  httpGet: \{path: (\S+), port", snippet)
    assert probes == [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    with probed(house) as at:
        at.server.start()
        for _, path in probes:
            assert at.page(path)[0] == 200
