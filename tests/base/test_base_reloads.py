"""The registry: names, warnings, one thread that nothing ends, and nothing left after the end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path

import pytest

from secure_base.reloading import Follower, Reloaded, Reloads, ReloadStatus, signature
from support.door import wait_until


class BadError(Exception):
    pass


class Book:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def __call__(self, level: str, event: str, **values: object) -> None:
        self.lines.append((level, event, values))


def read(path: Path) -> Reloaded[str]:
    def load(last: str | None) -> str:
        text = path.read_text()
        if text == "bad":
            raise BadError("It is bad.")
        return text

    return Reloaded("text", load, errors=(BadError,), version=lambda: signature([path]))


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_files_are_followed_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    book, before = Book(), threads()
    reloads = Reloads(book)
    text = read(path)
    reloads.follow(text)
    assert threads() <= before  # until it is started; threads of earlier tests may end meanwhile
    reloads.start()
    path.write_text("two")
    wait_until(lambda: text.value == "two")
    path.write_text("bad")
    wait_until(lambda: reloads.warnings, 2.0)
    refused = "text cannot be reloaded; the last good one stays: It is bad."
    assert (reloads.warnings, text.value) == ([refused], "two")
    assert reloads.statuses["text"].failures == 1
    path.write_text("three")
    wait_until(lambda: not reloads.warnings, 2.0)
    assert text.value == "three"
    assert [(level, event) for level, event, _ in book.lines] == [
        ("info", "reloaded"),
        ("warning", "cannot be reloaded; the last good one stays"),
        ("info", "reloaded"),
    ]
    reloads.close()
    assert threads() <= before


def test_sources_added_later_are_followed_and_unfollowed_ones_are_not(tmp_path: Path) -> None:
    reloads = Reloads()
    reloads.start()
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("one")
    second.write_text("one")
    one, two = read(first), read(second)
    unfollow = reloads.follow(one)
    reloads.follow(two)
    assert set(reloads.statuses) == {"text", "text #2"}
    assert two.status.source == "text #2"
    unfollow()
    assert set(reloads.statuses) == {"text #2"}
    first.write_text("two")
    second.write_text("two")
    wait_until(lambda: two.value == "two")
    reloads.look()
    assert one.value == "one"
    reloads.close()


def test_the_name_of_a_source_is_bounded() -> None:
    reloads = Reloads()
    reloads.add(ReloadStatus("x" * 10_000))
    assert [len(name) for name in reloads.statuses] == [200]


def test_an_earlier_failure_is_logged_when_the_source_is_added() -> None:
    status, book = ReloadStatus("text", settled=0), Book()
    status.fail(1, "It is bad.")
    Reloads(book).add(status)
    assert [values["reason"] for _, _, values in book.lines] == ["It is bad."]


class Looked:
    """What is looked at, and may misbehave."""

    def __init__(self, looking=lambda: None) -> None:
        self.status = ReloadStatus("looked")
        self.looks = 0
        self._looking = looking

    def look(self) -> None:
        self.looks += 1
        self._looking()


def test_a_look_that_raises_ends_neither_the_thread_nor_the_other_looks() -> None:
    def crash() -> None:
        raise ValueError("hunter2")

    book = Book()
    reloads = Reloads(book)
    bad, good = Looked(crash), Looked()
    reloads.follow(bad)
    reloads.follow(good)
    reloads.start()
    wait_until(lambda: bad.looks > 2 and good.looks > 2)
    reloads.close()
    assert {values["error"] for _, _, values in book.lines} == {"ValueError"}
    assert "hunter2" not in repr(book.lines)


def test_a_hanging_look_is_a_warning_and_closing_does_not_wait_for_it() -> None:
    begun, over = threading.Event(), threading.Event()
    now = [0.0]
    threads: list[threading.Thread] = []

    def hang() -> None:
        threads.append(threading.current_thread())
        begun.set()
        over.wait(60)

    hanging = Looked(hang)
    reloads = Reloads(clock=lambda: now[0])
    reloads.follow(hanging)
    reloads.start()
    assert begun.wait(5)
    assert reloads.warnings == []
    now[0] = 11.0
    assert len(reloads.warnings) == 1
    assert "has taken 11 seconds" in reloads.warnings[0]
    closing = threading.Thread(target=reloads.close)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    over.set()
    wait_until(lambda: not threads[0].is_alive())
    assert reloads.warnings == []


_ROUNDS = """
import os, sys, threading
from pathlib import Path
from secure_base.reloading import Reloaded, Reloads, signature

def left():
    return set(threading.enumerate()), len(os.listdir("/proc/self/fd"))

path = Path(sys.argv[1])
before = left()
for _ in range(100):
    reloads = Reloads()
    version = lambda: signature([path])
    reloads.follow(Reloaded("text", lambda _: path.read_text(), errors=(), version=version))
    reloads.start()
    reloads.close()
assert left() == before, (before, left())
"""


def test_a_hundred_rounds_leave_no_thread_and_no_file(tmp_path: Path) -> None:
    """In a process of its own, where no server of an earlier test lets go of some meanwhile."""
    path = tmp_path / "file"
    path.write_text("one")
    done = subprocess.run(
        [sys.executable, "-c", _ROUNDS, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_closing_from_its_own_thread_does_not_wait_for_itself() -> None:
    closed = threading.Event()
    reloads = Reloads()

    def close() -> None:
        reloads.close()
        closed.set()

    closer = Looked(close)
    reloads.follow(closer)
    reloads.start()
    assert closed.wait(5)


# The thread itself, as the client's channels use it


def test_a_follower_drops_sources_without_an_owner_and_ends_when_none_is_left() -> None:
    follower = Follower("looks", lambda _: None, interval=0.01)
    dropped = [Looked()]
    follower.add(dropped[0])
    wait_until(lambda: dropped[0].looks > 2)
    reference = weakref.ref(dropped.pop())
    gc.collect()
    wait_until(lambda: reference() is None)
    wait_until(lambda: not any(thread.name == "looks" for thread in threading.enumerate()))
    another = Looked()
    follower.add(another)
    wait_until(lambda: another.looks > 0)
    follower.discard(another)
    wait_until(lambda: not any(thread.name == "looks" for thread in threading.enumerate()))
    follower.close()


def test_no_source_is_checked_after_close() -> None:
    follower = Follower("looks", lambda _: None, interval=0.01)
    follower.close()
    looked, before = Looked(), threads()
    follower.add(looked)
    assert threads() <= before  # those of earlier tests may end meanwhile


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_in_a_process_that_was_forked_the_next_one_to_add_gets_a_thread() -> None:
    follower = Follower("looks", lambda _: None, interval=0.01)
    looked = Looked()
    follower.add(looked)
    wait_until(lambda: looked.looks > 0)
    child = os.fork()
    if child == 0:
        seen = Looked()
        follower.add(seen)
        over = threading.Event()
        for _ in range(500):
            if seen.looks:
                os._exit(0)
            over.wait(0.01)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    follower.close()


def test_a_pipe_in_the_place_of_a_file_holds_up_no_other_source(tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    for path in (pipe, file):
        path.write_text("1")
    reloads = Reloads()
    sources = [
        Reloaded(
            path.name,
            lambda _, path=path: path.read_text(),
            errors=(OSError,),
            version=lambda path=path: signature([path]),
        )
        for path in (pipe, file)
    ]
    for source in sources:
        reloads.follow(source)
    pipe.unlink()
    os.mkfifo(pipe)
    reloads.start()
    try:
        wait_until(lambda: "not a regular file" in sources[0].status.reason)
        file.write_text("2")
        wait_until(lambda: sources[1].value == "2")
        assert sources[0].value == "1"
    finally:
        with suppress(OSError):  # let the thread go
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        reloads.close()
