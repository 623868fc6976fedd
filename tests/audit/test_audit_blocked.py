"""O2: a logger that blocks delays no call and no other logger."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from audit_door import Pipe, audited, file_logger, policy, records

from secure_base.batching import BatchingWriter
from secure_server.audit import AuditEvent
from support.door import wait_until

_MOST = 50
_CALLS = 300


@pytest.fixture(autouse=True)
def small_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_server.audit.loggers.MOST", _MOST)


def test_O2_calls_go_on_while_no_process_reads_standard_output(
    tmp_path: Path, stack: str, log: list[dict[str, Any]]
) -> None:
    """The pipe holds a dozen lines; the file logger beside it writes every one."""
    file = tmp_path / "audit.log"
    with Pipe() as pipe:
        pipe.shrink()
        with audited(tmp_path, stack, policy({"name": "stdout_logger"}, file_logger(file))) as door:
            # In parts: the queue of the file, too, is short.
            for _ in range(_CALLS // 20):
                assert door.call_often(20) == ["OK"] * 20
                wait_until(door.loggers._told[1][1].queued._queue.empty)
            door.stop()
            begun = time.monotonic()
            door.loggers.close(0.5)
            assert time.monotonic() - begun < 2, "a logger that is stuck does not hold up the end"
            assert len(records(file)) == _CALLS
            dropped = door.dropped
            assert dropped["file_logger"] == 0
        written = len(pipe.rest())
    assert dropped["stdout_logger"] > _CALLS - 2 * _MOST - written
    assert dropped["stdout_logger"] + written >= _CALLS
    lost = [line for line in log if line["event"] == "audit events were lost"]
    assert {line["audit_logger"] for line in lost} == {"stdout_logger"}
    assert {line["reason"] for line in lost} <= {
        "the queue is full",
        "it was not written in time",
    }
    assert len(lost) <= 2, "said once in a while, not once a call"


def test_what_is_in_the_queue_is_written_before_the_guard_is_closed(
    tmp_path: Path, stack: str
) -> None:
    file = tmp_path / "audit.log"
    with audited(tmp_path, stack, policy(file_logger(file))) as door:
        assert door.call_often(_MOST) == ["OK"] * _MOST
    assert len(records(file)) == _MOST
    assert door.dropped == {"file_logger": 0}


class Sink:
    """A sink that keeps items, and raises where a test says so."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.lost: list[tuple[int, str]] = []
        self.raises: Exception | None = None
        self.finished = False

    def write(self, items: Sequence[Any]) -> None:
        if self.raises is not None:
            raise self.raises
        self.taken.extend(items)

    def dropped(self, count: int, reason: str) -> None:
        self.lost.append((count, reason))

    def finish(self) -> None:
        self.finished = True

    def queued(self, most: int = 1000) -> BatchingWriter[Any]:
        return BatchingWriter(
            "sink",
            self.write,
            most=most,
            at_once=7,
            linger=0.001,
            dropped=self.dropped,
            finish=self.finish,
        )


def test_items_are_written_in_their_order_and_all_of_them() -> None:
    sink = Sink()
    queued = sink.queued()
    for number in range(100):
        queued.put(number)
    queued.close(time.monotonic() + 10)
    assert sink.taken == list(range(100))
    assert (sink.lost, sink.finished) == ([], True)


def test_what_a_sink_raises_loses_those_items_and_no_others() -> None:
    sink = Sink()
    sink.raises = OSError(28, "No space left on device", "audit.log")
    queued = sink.queued()
    queued.put("lost")
    wait_until(lambda: bool(sink.lost))
    sink.raises = None
    queued.put("kept")
    queued.close(time.monotonic() + 10)
    assert sink.taken == ["kept"]
    assert sink.lost == [(1, "OSError: [Errno 28] No space left on device: 'audit.log'")]


def test_nothing_is_taken_after_the_end() -> None:
    sink = Sink()
    queued = sink.queued()
    queued.end()
    queued.put("late")
    queued.close(time.monotonic() + 10)
    assert sink.taken == []
    assert sum(count for count, _ in sink.lost) == 1


def test_an_event_says_when_it_was_without_being_told() -> None:
    before = time.time()
    assert before <= AuditEvent("/a.B/C", allowed=True).time <= time.time()


def test_a_sink_that_does_not_close_in_time_has_lost_nothing() -> None:
    sink, over = Sink(), threading.Event()
    sink.finish = lambda: over.wait(10)  # type: ignore[method-assign]
    queued = sink.queued()
    queued.put(1)
    queued.end()
    wait_until(lambda: queued._queue.empty() and sink.taken == [1])
    queued.close(time.monotonic())
    over.set()
    assert sink.lost == []
