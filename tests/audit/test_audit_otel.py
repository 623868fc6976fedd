"""``otel_logger``, against a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from audit_door import METHOD, audited, policy
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from secure_server.audit import AuditEvent
from secure_server.audit.otel import OtelLogger, OtelSettings
from support.door import wait_until


class Collector:
    """A collector that keeps log records and answers with ``status``."""

    def __init__(self) -> None:
        self.requests: list[ExportLogsServiceRequest] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/logs"
                collector.requests.append(ExportLogsServiceRequest.FromString(body))
                answer = ExportLogsServiceResponse().SerializeToString()
                self.send_response(collector.status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/logs"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def records(self) -> list[Any]:
        return [
            record
            for request in self.requests
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def attributes(record: Any) -> dict[str, Any]:
    return {
        each.key: each.value.string_value or each.value.bool_value for each in record.attributes
    }


def test_a_collector_gets_A59s_fields_and_the_true_reason(
    tmp_path: Path, stack: str, collector: Collector
) -> None:
    logger = {"name": "otel_logger", "config": {"endpoint": collector.endpoint}}
    with audited(tmp_path, stack, policy(logger)) as door:
        assert door.call() == "OK"
        expired = door.issuer.token(door.client("alice"), subject="eve", defect="expired")
        assert door.call(token=expired) == "UNAUTHENTICATED"
    allowed, refused = collector.records()
    assert attributes(allowed) == {
        "rpc_method": METHOD,
        "principal": "spiffe://example.org/client/alice",
        "policy_name": "probe",
        "matched_rule": "alice-gets",
        "authorized": True,
        "subject": "alice",
        "issuer": door.issuer.name,
        "authenticator": "jwt",
    }
    found = attributes(refused)
    assert (found["authorized"], found["reason"]) == (False, "expired")
    assert found["unverified.sub"] == "eve"
    assert [each.event_name for each in (allowed, refused)] == ["grpc_audit_log"] * 2
    assert [each.severity_text for each in (allowed, refused)] == ["INFO", "WARN"]
    assert allowed.time_unix_nano < refused.time_unix_nano
    (resource, *_) = (request.resource_logs[0].resource for request in collector.requests)
    named = {each.key: each.value.string_value for each in resource.attributes}
    assert named["service.name"] == "secure-grpc"


def test_O3_what_is_not_printable_is_escaped(collector: Collector) -> None:
    logger = OtelLogger(OtelSettings(endpoint=collector.endpoint))
    logger.write([AuditEvent("/a\n\x1b[31m\u202e/M", allowed=False, unverified={"sub": "e\rve"})])
    logger.close()
    (record,) = collector.records()
    found = attributes(record)
    assert found["rpc_method"] == r"/a\n\x1b[31m\u202e/M"
    assert found["unverified.sub"] == r"e\rve"


def test_what_a_collector_does_not_take_is_counted_and_calls_go_on(
    tmp_path: Path, stack: str, collector: Collector
) -> None:
    collector.status = 400
    logger = {"name": "otel_logger", "config": {"endpoint": collector.endpoint}}
    with audited(tmp_path, stack, policy(logger)) as door:
        assert door.call() == "OK"
        wait_until(lambda: door.dropped["otel_logger"] == 1)
        collector.status = 200
        assert door.call() == "OK"
    assert len(collector.records()) == 2
    assert door.dropped == {"otel_logger": 1}


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://a/b", "http://a b/", ""])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        OtelSettings(endpoint=endpoint)
