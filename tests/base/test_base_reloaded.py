"""Reloading: the last good value stays; a failure is logged once, and so is the recovery."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import pytest

from secure_base.reloading import Reloaded, Static, Watched, signature

SECRET = "hunter2"


class BadNumberError(Exception):
    pass


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Book:
    """What was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def __call__(self, level: str, event: str, **values: object) -> None:
        self.lines.append((level, event, values))

    @property
    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]


class Number:
    """A number in a file, reloaded; the version is handed in, so that a test says what changes."""

    def __init__(self, *, problems: bool = False) -> None:
        self.text, self.version, self.loads = "1", 1, 0
        self.clock, self.wall, self.book = Clock(), Clock(), Book()
        self.reloaded: Reloaded[int] = Reloaded(
            "number",
            self.load,
            errors=(BadNumberError,),
            version=lambda: self.version,
            problems=(lambda value: ["It is odd."] if value % 2 else [])
            if problems
            else lambda _: (),
            describe=lambda value: {"number": value},
            clock=self.clock,
            wall=self.wall,
        )
        self.status = self.reloaded.status
        self.status.log = self.book

    def load(self, last: int | None) -> int:
        self.loads += 1
        if self.text == "crash":
            raise ValueError(SECRET)
        try:
            return int(self.text)
        except ValueError:
            raise BadNumberError(f"{self.text!r} is no number.") from None

    def write(self, text: str) -> None:
        self.text, self.version = text, self.version + 1

    def look(self, *, after: float = 0.0) -> None:
        self.clock.now += after
        self.wall.now += after
        self.reloaded.look()


REFUSED = "cannot be reloaded; the last good one stays"


def test_a_new_value_is_served_passed_to_subscribers_and_logged() -> None:
    number, told = Number(), []
    unsubscribe = number.reloaded.subscribe(told.append)
    number.write("2")
    number.look(after=5)
    assert (number.reloaded.value, told) == (2, [2])
    assert number.book.lines == [("info", "reloaded", {"source": "number", "number": 2})]
    assert number.status.succeeded_at == 1005.0
    unsubscribe()
    number.write("3")
    number.look()
    assert (number.reloaded.value, told) == (3, [2])


def test_an_unchanged_source_is_not_loaded() -> None:
    number = Number()
    for _ in range(10):
        number.look(after=100)
    assert number.loads == 1


def test_the_same_value_written_again_is_no_reload() -> None:
    number, told = Number(), []
    number.reloaded.subscribe(told.append)
    number.write("1")
    number.look(after=5)
    assert (number.loads, told, number.book.lines) == (2, [], [])
    assert number.status.succeeded_at == 1005.0


def test_a_file_that_is_being_written_is_no_reload() -> None:
    number = Number()
    number.write("")
    number.look()
    number.write("7")
    number.look(after=0.4)
    assert number.reloaded.value == 7
    assert (number.status.failures, number.book.events) == (0, ["reloaded"])


def test_a_broken_source_is_logged_once_and_so_is_its_recovery() -> None:
    number = Number()
    number.write("x")
    number.look()
    assert (number.status.failures, number.status.warning) == (0, "")
    for _ in range(4):
        number.look(after=0.4)
    assert number.reloaded.value == 1
    assert number.status.failures == 1
    assert number.status.failure == "'x' is no number."
    assert number.status.warning == f"number {REFUSED}: 'x' is no number."
    assert number.status.succeeded_at == 1000.0
    told = ("warning", REFUSED, {"source": "number", "reason": "'x' is no number."})
    assert number.book.lines == [told]

    number.write("1")  # the very value that stayed
    number.look(after=10)
    assert number.status.warning == ""
    assert number.status.failures == 1
    assert number.status.succeeded_at > 1010
    assert number.book.events == [REFUSED, "reloaded"]

    number.write("x")  # the same again is news again, and as before not at once
    number.look()
    assert number.status.failures == 1
    number.look(after=1)
    assert number.status.failures == 2


def test_a_source_that_keeps_changing_while_it_is_bad_is_logged_too() -> None:
    number = Number()
    for text in ("a", "b", "c", "d"):
        number.write(text)
        number.look(after=0.4)
    assert number.status.failure == "'c' is no number."


def test_another_reason_is_logged_too() -> None:
    number = Number()
    number.write("x")
    number.look()
    number.look(after=1)
    number.write("y")
    number.look(after=0.4)
    assert number.status.failure == "'x' is no number.", "it may be written just now"
    number.look(after=1)
    assert number.status.failure == "'y' is no number."
    assert (number.status.failures, len(number.book.lines)) == (2, 2)


def test_a_half_written_repair_is_no_other_failure() -> None:
    number = Number()
    number.write("x")
    number.look()
    number.look(after=1)
    for text in ("", "4"):
        number.write(text)
        number.look(after=0.4)
    assert (number.reloaded.value, number.status.failures) == (4, 1)
    assert number.book.events == [REFUSED, "reloaded"]


def test_an_unchanged_bad_source_is_retried_at_growing_intervals() -> None:
    number = Number()
    number.write("x")
    moments = []
    for tenth in range(1, 2000):
        before = number.loads
        number.look(after=0.1)
        if number.loads != before:
            moments.append(tenth / 10)
    pauses = [round(b - a, 1) for a, b in itertools.pairwise(moments)]
    assert pauses == pytest.approx([0.8, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30], abs=0.15)


def test_a_changed_bad_source_is_retried_at_the_next_look() -> None:
    number = Number()
    number.write("x")
    for _ in range(100):
        number.look(after=0.4)
    number.write("2")
    number.look(after=0.01)
    assert number.reloaded.value == 2


def test_an_expired_value_is_noticed_without_a_change() -> None:
    number = Number()
    number.write("x")
    number.look()
    number.text = "2"  # as a certificate that becomes valid
    number.look(after=0.9)
    assert number.reloaded.value == 2


def test_an_unexpected_exception_is_logged_by_its_type_alone() -> None:
    number = Number()
    number.write("crash")
    number.look()
    number.look(after=1)
    assert number.reloaded.value == 1
    assert number.status.failure == "ValueError while it was loaded."
    assert SECRET not in repr(number.book.lines)


def test_a_subscriber_that_raises_does_not_stop_other_subscribers() -> None:
    number, told = Number(), []

    def refuse(value: int) -> None:
        raise ValueError(SECRET)

    number.reloaded.subscribe(refuse)
    number.reloaded.subscribe(told.append)
    number.write("2")
    number.look()
    assert told == [2]
    level, _, values = number.book.lines[0]
    assert (level, values["source"], values["error"]) == ("error", "number", "ValueError")
    assert "in refuse" in str(values["traceback"])
    assert SECRET not in repr(number.book.lines)


def test_a_value_with_problems_is_used_and_its_source_has_failed() -> None:
    number = Number(problems=True)
    # At the start no last good value exists; the failure is logged like any other.
    number.look(after=1)
    assert number.status.warning.endswith(": It is odd.")
    number.write("2")
    number.look()
    assert (number.reloaded.value, number.status.warning) == (2, "")
    number.write("3")
    number.look(after=50)
    assert number.reloaded.value == 3
    number.look(after=1)
    assert number.status.failures == 2
    assert number.status.warning == f"number {REFUSED}: It is odd."
    assert number.status.succeeded_at == 1001.0


def test_the_first_load_raises_its_error() -> None:
    def load(last: int | None) -> int:
        raise BadNumberError("none")

    with pytest.raises(BadNumberError):
        Reloaded("number", load, errors=(BadNumberError,), version=lambda: 1)


def test_a_source_without_a_version_is_loaded_at_each_look_and_failures_are_logged_at_once() -> (
    None
):
    answers = iter([2, BadNumberError("away"), 2])

    def load(last: int | None) -> int:
        match next(answers):
            case Exception() as error:
                raise error
            case number:
                return number

    source: Reloaded[int] = Reloaded("number", load, errors=(BadNumberError,), first=0)
    book = source.status.log = Book()
    assert (source.value, source.status.reason) == (0, "it was not loaded yet")
    source.look()
    assert (source.value, source.status.reason) == (2, "")
    source.look()
    assert (source.value, source.status.failure, source.status.failures) == (2, "away", 1)
    source.look()
    assert book.events == ["reloaded", REFUSED, "reloaded"]


def test_a_source_that_was_never_loaded_has_no_last_good_one() -> None:
    def load(last: int | None) -> int:
        raise BadNumberError("away")

    source: Reloaded[int] = Reloaded("number", load, errors=(BadNumberError,), first=0)
    source.look()
    assert source.status.warning == "number cannot be loaded: away"


def test_concurrent_looks_load_once() -> None:
    number = Number()
    number.write("2")
    at_once = threading.Barrier(8)

    def look() -> None:
        at_once.wait()
        number.reloaded.look()

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (number.loads, number.reloaded.value) == (2, 2)


def test_a_static_value_is_watched_like_any_other() -> None:
    value: Watched[int] = Static(3)
    value.subscribe(lambda _: pytest.fail("it changes never"))()
    assert value.value == 3


# What of files is noticed


def settled(paths: list[Path]) -> object:
    """The signature once the files are older than the tick by which the kernel stamps them."""
    while (found := signature(paths)) != signature(paths):
        pass
    return found


def swapped(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_text("b")
    other.replace(path)


CHANGES = {
    "written over": lambda path: path.write_text("b"),
    "renamed into its place": swapped,
    "gone": lambda path: path.unlink(),
    "another mode": lambda path: path.chmod(0o640),
    "as old as before": lambda path: (path.write_text("b"), os.utime(path, (1, 1))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "in a folder"])
def test_a_change_of_a_file_changes_the_signature(tmp_path: Path, change, is_folder) -> None:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_text("a")
    os.utime(path, (1, 1))
    path.chmod(0o600)
    watched = [path.parent if is_folder else path]
    before = settled(watched)
    assert signature(watched) == before
    change(path)
    assert settled(watched) != before


def test_a_new_file_in_a_folder_and_the_links_of_kubernetes_change_the_signature(tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / "..data").symlink_to(tmp_path / "one")
    (tmp_path / "mount" / "file").symlink_to("..data/file")
    file, folder = [tmp_path / "mount" / "file"], [tmp_path / "mount"]
    before = settled(file), settled(folder)
    (tmp_path / "new").symlink_to(tmp_path / "two")
    (tmp_path / "new").rename(tmp_path / "mount" / "..data")
    after = settled(file), settled(folder)
    assert before[0] != after[0]
    assert before[1] != after[1]
    (tmp_path / "mount" / "another").touch()
    assert settled(folder) != after[1]


def test_a_file_written_twice_within_a_tick_is_seen_twice(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for _ in range(200):
        path.write_text("a")
        before = signature([path])
        path.write_text("b")
        assert signature([path]) != before


def test_a_file_that_was_written_just_now_is_read_once_more(tmp_path: Path) -> None:
    """Not every kernel stamps two writes of one tick differently."""
    path = tmp_path / "file"

    def differs() -> bool:
        path.write_text("a")
        return signature([path]) != signature([path])

    assert any(differs() for _ in range(200))
    settled([path])
    assert signature([path]) == signature([path])


def test_links_that_lead_round_and_round_are_not_followed(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).symlink_to(tmp_path)
    assert len(settled([tmp_path])[0]) == 4


def test_a_subscriber_may_look_and_finds_nothing_newer() -> None:
    """Also where no two values are equal, and where each look finds another version."""
    loads: list[object] = []

    def load(_last: object) -> object:
        loads.append(object())
        return loads[-1]

    book = Book()
    reloaded: Reloaded[object] = Reloaded("number", load, errors=())
    reloaded.status.log = book
    told: list[object] = []
    reloaded.subscribe(lambda value: (told.append(value), reloaded.look()))
    reloaded.look()
    assert (len(loads), told, book.events) == (2, [reloaded.value], ["reloaded"])


def test_a_value_that_can_be_neither_compared_nor_described_leaves_the_last_good_one() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError(SECRET)

        __hash__ = None  # type: ignore[assignment]

    def describe(_value: object) -> dict[str, object]:
        raise RuntimeError(SECRET)

    for load, saying in ((lambda _: Odd(), None), (lambda _: object(), describe)):
        first = object()
        more = {} if saying is None else {"describe": saying}
        reloaded: Reloaded[object] = Reloaded("odd", load, errors=(), first=first, **more)
        reloaded.look()
        assert reloaded.value is first
        assert reloaded.status.reason == "RuntimeError while it was loaded."
