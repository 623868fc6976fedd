"""docs/audit.md: its policy, its line, its table, its numbers, and its logger."""

from __future__ import annotations

import json
import re
import sys
import syslog
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from test_docs_run import ROOT, Block, blocks

from secure_server.audit import AuditEvent
from secure_server.audit.file import FileSettings
from secure_server.audit.loggers import FLUSH, MOST
from secure_server.audit.options import configured_loggers
from secure_server.audit.otel import OtelSettings
from secure_server.audit.plugin import announced
from secure_server.audit.record import a59_record, lines
from secure_server.authz import Policy
from secure_tls.authority import Authority
from secure_tls.peer import parse_peer

DOCUMENT = (ROOT / "docs/audit.md").read_text(encoding="utf-8")


def only(kind: str) -> Block:
    (block,) = [block for block in blocks("docs/audit.md") if block.kind == kind]
    return block


def test_the_policy_that_is_shown_names_every_logger_that_there_is() -> None:
    text = only("json").text
    policy = Policy.parse(text, known_loggers=announced())
    named = {logger.name for logger in configured_loggers(text, origin="docs/audit.md")}
    assert named == announced() == {logger.name for logger in policy.audit_loggers}


def test_the_line_that_is_shown_is_what_is_written() -> None:
    shown = only("text").text
    fields = json.loads(shown)["grpc_audit_log"]
    billing = Authority.create("example.org").issue_client("billing")
    event = AuditEvent(
        fields["rpc_method"],
        allowed=True,
        rule="administrators",
        policy="example",
        peer=parse_peer(billing.certificate_pem),
        time=datetime.fromisoformat(fields["timestamp"]).timestamp(),
    )
    assert b"".join(lines([a59_record(event)])).decode() == shown


def test_the_table_has_every_setting_with_its_default() -> None:
    for settings in (FileSettings, OtelSettings):
        for name, field in settings.model_fields.items():
            (row,) = re.findall(rf"^\|.*\| `{name}` \|(.*)\|.*\|$", DOCUMENT, re.MULTILINE)
            if isinstance(field.default, int):
                assert row.strip() == f"`{field.default}`"


def test_the_numbers_are_the_codes() -> None:
    assert f"a queue of {MOST} events" in DOCUMENT
    assert FLUSH == 5
    assert "five seconds at the most" in DOCUMENT


def test_the_logger_that_is_shown_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "acme_audit-1.0.dist-info"
    package.mkdir()
    name, place = re.findall(r'^(\w+) = "(.*)"$', only("toml").text, re.MULTILINE)[0]
    (package / "entry_points.txt").write_text(f"[secure_server.audit_loggers]\n{name} = {place}\n")
    (tmp_path / "acme_audit.py").write_text(only("python").text)
    monkeypatch.syspath_prepend(tmp_path)
    said: list[Any] = []
    monkeypatch.setattr(syslog, "openlog", lambda ident, facility: said.append(ident))
    monkeypatch.setattr(syslog, "syslog", lambda line: said.append(json.loads(line)))
    options = {"audit_loggers": [{"name": name, "config": {"ident": "mine"}}]}
    text = json.dumps({"audit_logging_options": options})
    try:
        (configured,) = configured_loggers(text, origin="docs/audit.md")
        sink = configured.build()
        sink.write([AuditEvent("/a.B/C", allowed=True, rule="r")])
        sink.close()
    finally:
        sys.modules.pop("acme_audit", None)
    assert said == ["mine", {"method": "/a.B/C", "allowed": True, "rule": "r"}]
