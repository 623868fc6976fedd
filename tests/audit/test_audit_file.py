"""``file_logger``: who may read it, how it is rotated, and what a full disk does to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audit_door import audited, file_logger, policy, records

from secure_server.audit import AuditEvent
from secure_server.audit.file import FileLogger, FileSettings
from support.door import wait_until

_LEAST = 64 * 1024


def event(number: int) -> AuditEvent:
    return AuditEvent(f"/probe.Probe/{number}", allowed=True, rule="r", policy="p")


def numbers(*paths: Path) -> list[int]:
    found = [record["rpc_method"] for path in paths for record in records(path)]
    return [int(method.rpartition("/")[2]) for method in found]


def test_only_its_owner_may_read_it_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for number in range(2):
        logger = FileLogger(FileSettings(path=path))
        logger.write([event(number)])
        logger.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert numbers(path) == [0, 1]


def test_it_is_rotated_before_it_grows_too_large_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    backups = [path.with_name(f"audit.log.{number}") for number in (1, 2, 3)]
    logger = FileLogger(FileSettings(path=path, max_bytes=_LEAST, backups=2))
    for number in range(1500):
        logger.write([event(number)])
    logger.close()
    sizes = [each.stat().st_size for each in (path, *backups[:2])]
    assert max(sizes) <= _LEAST
    assert not backups[2].exists()
    kept = numbers(backups[1], backups[0], path)
    assert kept == list(range(kept[0], 1500)), "in order, and none is missing"
    assert kept[0] > 0
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in backups[:2])


def test_a_new_file_is_created_where_another_process_moves_it(tmp_path: Path) -> None:
    """logrotate renames it, and sends no signal."""
    path, moved = tmp_path / "audit.log", tmp_path / "audit.log-20260101"
    logger = FileLogger(FileSettings(path=path))
    logger.write([event(0)])
    path.rename(moved)
    logger.write([event(1)])
    path.unlink()
    logger.write([event(2)])
    logger.close()
    assert (numbers(moved), numbers(path)) == ([0], [2])


WRITER = """
import sys
from pathlib import Path
from secure_server.audit import AuditEvent
from secure_server.audit.file import FileLogger, FileSettings
logger = FileLogger(FileSettings(path=Path(sys.argv[1]), max_bytes=65536, backups=1000))
for number in range(0, 2000, 5):
    logger.write([AuditEvent(f"/{sys.argv[2]}/{number + i}", allowed=True) for i in range(5)])
"""


def test_several_processes_may_write_to_one_file_and_rotate_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(name)]) for name in range(2)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    files = list(tmp_path.glob("audit.log*"))
    assert len(files) > 5
    methods = [record["rpc_method"] for file in files for record in records(file)]
    assert sorted(methods) == sorted(f"/{name}/{n}" for name in range(2) for n in range(2000))
    assert max(file.stat().st_size for file in files) <= _LEAST


FULL = r"""
import json, resource, signal, sys, time
from pathlib import Path
from secure_server.audit import AuditEvent
from secure_server.audit.loggers import Loggers
from secure_server.audit.options import configured_loggers
from secure_server.authz.audit_options import AuditCondition

path, policy = Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
loggers = Loggers()
loggers.replace(configured_loggers(policy, origin="policy"), AuditCondition.ON_ALLOW)

def write(first, events):
    for number in range(first, first + events):
        loggers.write(AuditEvent(f"/probe.Probe/{number}", allowed=True))
    while path.read_bytes().count(b"\n") + loggers.dropped.counts["file_logger"] < first + events:
        time.sleep(0.005)

write(0, 10)
# The next line fits by half.
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, resource.RLIM_INFINITY))
write(10, 10)
write(20, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write(30, 10)
loggers.close()
print(json.dumps(loggers.dropped.counts))
"""


def test_O9_a_full_disk_is_said_once_counted_and_leaves_no_half_line(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does: a part is written, then nothing."""
    path = tmp_path / "audit.log"
    text = policy(file_logger(path))
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), text],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert numbers(path) == [*range(10), *range(30, 40)]
    assert json.loads(done.stdout) == {"file_logger": 20}
    said = [line for line in done.stderr.splitlines() if "audit events were lost" in line]
    assert len(said) == 2, "at once, and what came to it at the end"
    assert f"File too large: '{path}'" in said[0]


def test_a_file_that_cannot_be_written_any_more_fails_no_call(
    tmp_path: Path, stack: str, log: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "audit.log"
    with audited(tmp_path, stack, policy(file_logger(path))) as door:
        assert door.call() == "OK"
        wait_until(lambda: len(records(path)) == 1)
        path.unlink()
        folder.rmdir()
        assert door.call() == "OK"
        wait_until(lambda: door.dropped["file_logger"] == 1)
        folder.mkdir()
        assert door.call() == "OK"
    assert len(records(path)) == 1
    (line,) = [line for line in log if line["event"] == "audit events were lost"]
    assert line["reason"] == f"FileNotFoundError: [Errno 2] No such file or directory: '{path}'"
    assert (line["count"], line["log_level"]) == (1, "error")
