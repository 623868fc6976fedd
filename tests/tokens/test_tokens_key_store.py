"""The keys of a running server follow the clock, and the file that other processes change."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from secure_base.reloading import Reloads
from secure_server.logs import log_reload
from secure_server.tokens.key_file import KeyFile
from secure_server.tokens.key_ring import VERIFIES_FOR
from secure_server.tokens.key_store import KeyStore

DAY = 86_400
LIFETIME = 90 * DAY
PUBLISHING = 600


class Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "signing-key.pem")


@pytest.fixture
def make(file: KeyFile, clock: Clock) -> Callable[..., KeyStore]:
    def make(lifetime: int = LIFETIME) -> KeyStore:
        return KeyStore(file, lifetime=lifetime, publishing=PUBLISHING, clock=clock)

    return make


def rotate(file: KeyFile, clock: Clock, publishing: int = 0) -> str:
    """Do as the command does and return the new key's id."""
    ring = file.change(lambda ring: ring.rotated(clock(), publishing), clock())
    return ring.entries[0].key.key_id


def look(store: KeyStore) -> None:
    """Do what two threads do: look at the file, and go on with the clock."""
    store.look()
    store.tick()


def settle(file: KeyFile) -> None:
    """Wait until the file is older than a tick of the clock that it is stamped by."""
    while file.version() != file.version():
        time.sleep(0.005)


def kid(store: KeyStore) -> str:
    return str(jwt.get_unverified_header(store.ring().sign({}))["kid"])


def test_a_rotation_by_another_process_is_reloaded_at_the_next_look(
    make: Callable[..., KeyStore], file: KeyFile, clock: Clock
) -> None:
    store = make()
    first = kid(store)
    second = rotate(file, clock, PUBLISHING)
    store.look()
    assert kid(store) == first
    assert set(store.ring().keys) == {first, second}
    clock.now += PUBLISHING
    assert kid(store) == second  # by the clock alone, without a look


def test_a_file_that_is_only_written_again_is_no_change(
    make: Callable[..., KeyStore], file: KeyFile
) -> None:
    store = make()
    told: list[object] = []
    store._read.subscribe(told.append)
    for _ in range(3):
        file.path.touch()
        store.look()
    assert store.status.failure == ""
    assert told == []


def test_a_running_store_looks_by_itself(
    make: Callable[..., KeyStore], file: KeyFile, clock: Clock
) -> None:
    store, reloads = make(), Reloads()
    store.start(withdrawn=bool)
    reloads.follow(store)
    reloads.start()
    try:
        second = rotate(file, clock)
        end = time.monotonic() + 10
        while kid(store) != second:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        reloads.close()
        store.close()
    assert store._thread is not None
    store._thread.join(10)
    assert not store._thread.is_alive()


def test_a_token_of_the_server_beside_this_one_is_good_before_the_next_look(
    make: Callable[..., KeyStore], file: KeyFile, clock: Clock
) -> None:
    beside, store = make(), make()
    second = rotate(file, clock)
    look(beside)
    assert kid(beside) == second
    assert store.find(second) is not None
    assert store.find("invented") is None


def test_unknown_keys_make_the_file_read_once_and_not_once_each(
    make: Callable[..., KeyStore],
    file: KeyFile,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = make()
    read: list[float] = []
    real = KeyFile.read
    monkeypatch.setattr(KeyFile, "read", lambda self, now: read.append(now) or real(self, now))
    settle(file)
    for number in range(100):
        assert store.find(f"invented-{number}") is None
    assert len(read) == 1
    file.path.write_text("unusable")
    settle(file)
    for number in range(100):
        assert store.find(f"invented-{number}") is None
    assert len(read) == 2


def test_K8_when_a_key_is_withdrawn_subscribers_are_called_and_the_file_drops_it(
    make: Callable[..., KeyStore], file: KeyFile, clock: Clock
) -> None:
    store = make()
    told: list[float] = []
    store._withdrawn = lambda: told.append(clock())
    first = kid(store)
    second = rotate(file, clock, PUBLISHING)
    for step in (0, PUBLISHING, VERIFIES_FOR - 1):
        clock.now += step
        look(store)
        assert store.find(first) is not None
    assert not told
    clock.now += 1
    assert store.find(first) is None
    look(store)
    assert told == [clock.now]
    assert set(store.ring().keys) == {second}
    assert first not in file.path.read_text()
    look(store)
    assert len(told) == 1


def test_K8_a_key_that_is_removed_from_the_file_verifies_nothing_any_more(
    make: Callable[..., KeyStore], file: KeyFile, clock: Clock
) -> None:
    """A stolen key, for example: its tokens would otherwise be accepted for another hour."""
    store = make()
    told: list[int] = []
    store._withdrawn = lambda: told.append(1)
    first = kid(store)
    second = rotate(file, clock)
    store.look()
    assert store.find(first) is not None
    blocks = file.path.read_text().split("\n\n")
    assert len(blocks) == 2
    file.path.write_text(next(block for block in blocks if second in block))
    store.look()
    assert store.find(first) is None
    assert kid(store) == second
    assert told == [1]


def test_after_its_lifetime_a_key_is_followed_by_the_next_one_and_only_one(
    make: Callable[..., KeyStore], clock: Clock
) -> None:
    store, beside = make(), make()
    first = kid(store)
    clock.now += LIFETIME - 1
    look(store)
    assert store.ring().next is None
    clock.now += 1
    for each in (store, beside, store, beside):
        look(each)
    assert kid(store) == first
    following = store.ring().next
    assert following is not None
    assert following.signs_from == int(clock()) + PUBLISHING
    assert set(beside.ring().keys) == set(store.ring().keys) == {first, following.key_id}
    clock.now += PUBLISHING
    assert kid(store) == kid(beside) == following.key_id
    clock.now += LIFETIME - 1
    look(store)
    assert store.ring().next is None


def test_without_a_lifetime_a_key_stays_for_ever(
    make: Callable[..., KeyStore], clock: Clock
) -> None:
    store = make(lifetime=0)
    first = kid(store)
    clock.now += 10_000 * DAY
    look(store)
    assert [entry.key.key_id for entry in store.ring().entries] == [first]


@pytest.mark.parametrize("defect", ["garbage", "readable", "gone", "half"])
def test_an_unreadable_file_removes_no_key_and_is_logged_once(
    make: Callable[..., KeyStore],
    file: KeyFile,
    clock: Clock,
    log: list[dict[str, Any]],
    defect: str,
) -> None:
    store, reloads = make(), Reloads(log_reload)
    reloads.follow(store)
    first = kid(store)
    whole = file.path.read_bytes()
    if defect == "garbage":
        file.path.write_text("unusable")
    elif defect == "half":
        file.path.write_bytes(whole[: len(whole) // 2])
    elif defect == "readable":
        file.path.chmod(0o644)
    else:
        file.path.unlink()
    settle(file)
    for second in range(3):
        store.status._clock = lambda second=second: second
        look(store)
        assert kid(store) == first
        assert store.find(first) is not None
    (line,) = log
    assert (line["log_level"], line["event"], line["source"]) == (
        "warning",
        "cannot be reloaded; the last good one stays",
        "signing-key",
    )
    assert "signing-key.pem" in line["reason"]
    assert not [part for part in whole.decode().splitlines() if part in line["reason"]]

    file.path.unlink(missing_ok=True)
    file.path.touch(mode=0o600)
    file.path.write_bytes(whole)
    assert reloads.warnings
    renewed = rotate(file, clock)
    look(store)
    assert kid(store) == renewed
    assert reloads.warnings == []
    assert [line["event"] for line in log][1:] == ["signing keys changed", "reloaded"]


def test_keys_that_cannot_be_rotated_are_logged_once_an_hour_and_still_sign(
    make: Callable[..., KeyStore],
    file: KeyFile,
    clock: Clock,
    tmp_path: Path,
    log: list[dict[str, Any]],
) -> None:
    """As where Kubernetes mounts them: a link, and read-only."""
    elsewhere = tmp_path / "elsewhere.pem"
    KeyFile(elsewhere).open(clock())
    file.path.symlink_to(elsewhere)
    store = make()
    first = kid(store)
    clock.now += LIFETIME
    for seconds in (0, 1, 3598, 1):
        clock.now += seconds
        look(store)
    assert kid(store) == first
    events = [line["event"] for line in log]
    assert events == ["the signing keys cannot be changed"] * 2


def test_what_changes_is_logged_by_name_alone(
    make: Callable[..., KeyStore], file: KeyFile, clock: Clock, log: list[dict[str, Any]]
) -> None:
    store = make()
    first = kid(store)
    look(store)
    second = rotate(file, clock, PUBLISHING)
    look(store)
    clock.now += PUBLISHING
    look(store)
    clock.now += VERIFIES_FOR
    look(store)
    changes = [(e["signing"], e["next"], e["verifying"]) for e in log]
    assert changes == [(first, second, []), (second, None, [first]), (second, None, [])]
    text = repr(log) + repr(store.__dict__)
    secret = store.ring().signing.private_key.private_numbers().private_value
    assert str(secret) not in text
    assert "PRIVATE" not in text
