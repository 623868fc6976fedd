"""Which loggers a policy may name, and the errors of mistakes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_door import audited, file_logger, policy, records

import secure_server
from secure_server import ConfigError, PolicyError
from secure_server.audit import AuditLoggerError
from secure_server.guard.policy_file import PolicyFile, read_policy
from support.running import Installation


def written(tmp_path: Path, *loggers: Any) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(policy(*loggers).replace(', "config', ',\n "config'))
    return path


def mistake(tmp_path: Path, *loggers: Any) -> PolicyError:
    path = written(tmp_path, *loggers)
    with pytest.raises(PolicyError) as caught:
        read_policy(path)
    error = caught.value
    assert error.line is not None
    assert str(error).startswith(f"{path}:{error.line}:{error.column}: ")
    return error


def test_several_loggers_are_told_of_the_same_events(tmp_path: Path, stack: str) -> None:
    files = [tmp_path / "one.log", tmp_path / "two.log"]
    with audited(tmp_path, stack, policy(*map(file_logger, files))) as door:
        assert door.call() == "OK"
        assert door.call(client="bob") == "PERMISSION_DENIED"
    first, second = map(records, files)
    assert [record["authorized"] for record in first] == [True, False]
    assert first == second


def test_an_unknown_logger_is_an_error_with_its_place(tmp_path: Path) -> None:
    error = mistake(tmp_path, {"name": "syslog", "config": {}})
    assert error.path == "$.audit_logging_options.audit_loggers[0].name"
    assert 'Unknown audit logger "syslog"' in str(error)
    assert '"file_logger", "otel_logger", "stdout_logger"' in str(error)


def test_an_unknown_logger_that_is_optional_is_left_out_and_the_log_says_so(
    tmp_path: Path, stack: str, log: list[dict[str, Any]]
) -> None:
    file = tmp_path / "audit.log"
    optional = {"name": "syslog", "is_optional": True}
    with audited(tmp_path, stack, policy(optional, file_logger(file))) as door:
        assert door.call() == "OK"
    assert len(records(file)) == 1
    (line,) = [line for line in log if line["event"] == "an optional audit logger is left out"]
    assert line["name"] == "syslog"


@pytest.mark.parametrize(
    ("config", "said", "path"),
    [
        ({}, '"path" is missing', ".config"),
        ({"pth": "a"}, '"path" is missing', ".config"),
        ({"path": "a", "max_byte": 1}, 'Did you mean "max_bytes"?', ".config.max_byte"),
        ({"path": "a", "max_bytes": 1}, "greater than or equal to 65536", ".config.max_bytes"),
        ({"path": "a", "backups": True}, "must be a number, not true or false", ".config.backups"),
        ({"path": ""}, "is not the path of a file", ".config.path"),
        ({"path": 7}, '"path" is wrong', ".config.path"),
        (None, '"path" is missing', ""),
    ],
)
@pytest.mark.parametrize("is_optional", [False, True])
def test_a_mistake_in_a_config_is_an_error_with_its_place(
    tmp_path: Path, config: dict[str, Any] | None, said: str, path: str, is_optional: bool
) -> None:
    """Also for an optional logger, as in grpc-go: only its presence is optional."""
    logger: dict[str, Any] = {"name": "file_logger", "is_optional": is_optional}
    if config is not None:
        logger["config"] = config
    error = mistake(tmp_path, {"name": "stdout_logger"}, logger)
    assert said in str(error)
    assert error.path == f"$.audit_logging_options.audit_loggers[1]{path}"
    if config:
        assert error.line == 2, "that of the config"


def test_a_config_of_stdout_logger_is_ignored_as_in_grpc_go(tmp_path: Path) -> None:
    read_policy(written(tmp_path, {"name": "stdout_logger", "config": {"some": "thing"}}))


def test_paths_count_from_the_folder_of_the_policy(tmp_path: Path, stack: str) -> None:
    with audited(tmp_path, stack, policy(file_logger(Path("here.log")))) as door:
        assert door.call() == "OK"
    assert len(records(tmp_path / "here.log")) == 1


@pytest.mark.parametrize("in_its_place", ["no folder", "a folder", "a fifo"])
def test_a_file_that_cannot_be_written_keeps_the_guard_from_starting(
    tmp_path: Path, in_its_place: str
) -> None:
    path = tmp_path / ("missing/audit.log" if in_its_place == "no folder" else "audit.log")
    if in_its_place == "a folder":
        path.mkdir()
    if in_its_place == "a fifo":
        os.mkfifo(path)
    text = written(tmp_path, file_logger(path))
    read_policy(text)  # opens nothing
    with pytest.raises(AuditLoggerError, match=rf"The audit logger file_logger: {path}: cannot be"):
        PolicyFile(text)


def test_without_its_extra_otel_logger_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[dict[str, Any]]
) -> None:
    monkeypatch.delitem(sys.modules, "secure_server.audit.otel", raising=False)
    for name in ("opentelemetry", "opentelemetry._logs"):
        monkeypatch.setitem(sys.modules, name, None)
    error = mistake(tmp_path, {"name": "otel_logger"})
    assert error.path == "$.audit_logging_options.audit_loggers[0].name"
    assert "pip install 'secure-grpc[otel]'" in str(error)
    assert len(str(error).splitlines()) == 1
    read_policy(written(tmp_path, {"name": "otel_logger", "is_optional": True}))
    assert "secure-grpc[otel]" in str(log[-1]["reason"])


PLUG_IN = """
from secure_server.audit import AuditEvent, AuditLoggerType, Settings

class ListSettings(Settings):
    file: str

class ListLogger:
    def __init__(self, settings):
        self._settings = settings
    def write(self, events):
        with open(self._settings.file, "a") as file:
            file.writelines(f"{event.method} {event.allowed} {event.rule}\\n" for event in events)
    def close(self):
        with open(self._settings.file, "a") as file:
            file.write("closed\\n")

LIST = AuditLoggerType(ListSettings, ListLogger)
FUTURE = AuditLoggerType(ListSettings, ListLogger, api_version=2)
NONE = object()
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package of another project."""
    site = tmp_path / "site"
    package = site / "list_logger-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: list-logger\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[secure_server.audit_loggers]\n"
        "list = list_logger:LIST\nfuture = list_logger:FUTURE\nnone = list_logger:NONE\n"
        "gone = list_logger_gone:LIST\nstdout_logger = list_logger:LIST\n"
    )
    (site / "list_logger.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("list_logger", None)


def test_a_plug_in_is_found_by_its_entry_point(tmp_path: Path, stack: str, plug_in: None) -> None:
    file = tmp_path / "list"
    with audited(tmp_path, stack, policy({"name": "list", "config": {"file": str(file)}})) as door:
        assert door.call() == "OK"
    assert file.read_text() == "/probe.Probe/Get True alice-gets\nclosed\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("future", "version 2 of the plug-in protocol, and this is version 1"),
        ("none", "list_logger:NONE is no AuditLoggerType"),
        ("gone", "No module named 'list_logger_gone'"),
        ("stdout_logger", "both provide it"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_named(
    tmp_path: Path, plug_in: None, name: str, said: str
) -> None:
    assert said in str(mistake(tmp_path, {"name": name, "config": {"file": "x"}}))


def test_a_policy_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    with pytest.raises(ConfigError, match="cannot read the policy: No such file"):
        PolicyFile(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        PolicyFile(path)
    path.write_text(json.dumps({"name": "x"}))
    with pytest.raises(PolicyError, match="allow_rules"):
        PolicyFile(path)


def test_the_server_says_in_one_line_why_it_cannot_audit(tmp_path: Path) -> None:
    installation = Installation(tmp_path, settings='[policy]\nfile = "policy.json"\n')
    shipped = Path(secure_server.__file__).with_name("policy.json").read_text()
    options = json.loads(policy(file_logger(Path("missing/audit.log"))))["audit_logging_options"]
    (tmp_path / "policy.json").write_text(
        json.dumps(json.loads(shipped) | {"audit_logging_options": options})
    )
    server = installation.spawn()
    assert server.process.wait(60) == 1
    assert server.log == (
        f"secure-server: The audit logger file_logger: {tmp_path}/missing/audit.log: "
        "cannot be written: No such file or directory. Let the server write there, or name another "
        "path.\n"
    )
