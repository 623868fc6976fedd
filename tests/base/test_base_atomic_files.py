"""A file is written whole or not at all, never readable by more than it should be."""

import errno
import multiprocessing
import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from secure_base.atomic_files import (
    NoHardLinksError,
    NoLocksError,
    locked,
    make_folder,
    remove_drafts,
    replace,
    write_draft,
    write_new,
)

STEPS = ("open", "fsync", "fchown", "fchmod", "link", "replace", "unlink")
SPAWN = multiprocessing.get_context("spawn")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class Fault:
    """At the n-th step that reaches the disk, ``fail`` is called in its place."""

    def __init__(self, patch, number, fail):
        self.number, self.count, self.fail, self.failed = number, 0, fail, ""
        for name in STEPS:
            patch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name, real):
        def step(*arguments, **options):
            self.count += 1
            if self.count == self.number:
                self.failed = name
                self.fail()
            return real(*arguments, **options)

        return step


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


WRITERS = {
    "replace": lambda path: replace(path, b"new", keep=True),
    "replace what is not secret": lambda path: replace(path, b"new", secret=False, keep=True),
    "write_new": lambda path: write_new(path, b"new", secret=True),
}
BEFORE = {"write_new": None}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_fails_at_any_step_leaves_old_or_new_and_no_draft(tmp_path, writer):
    before, failures, number = BEFORE.get(writer, b"old"), 0, 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "file"
        if before is not None:
            path.write_bytes(before)
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, number, full)
            try:
                WRITERS[writer](path)
            except OSError:
                failures += 1
        found = path.read_bytes() if path.exists() else None
        assert found in {before, b"new"}
        if fault.count < number:
            break
        drafts = [each for each in folder.iterdir() if each != path]
        assert drafts == [] or fault.failed == "unlink"
    assert found == b"new"
    assert failures >= 4


def killed_at(number: int, path: Path, writer: str) -> None:
    Fault(pytest.MonkeyPatch(), number, die)
    WRITERS[writer](path)
    os._exit(0)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_process_killed_at_any_step_leaves_old_or_new(tmp_path, writer):
    before, killed = BEFORE.get(writer, b"old"), 0
    for number in range(1, 100):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "file"
        if before is not None:
            path.write_bytes(before)
        child = os.fork()
        if not child:
            killed_at(number, path, writer)
        if os.waitpid(child, 0)[1] == 0:
            break
        killed += 1
        assert (path.read_bytes() if path.exists() else None) in {before, b"new"}
        drafts = [each for each in folder.iterdir() if each != path]
        assert all(mode(each) <= 0o644 for each in drafts)
        remove_drafts(folder, "file")
        assert [each for each in folder.iterdir() if each != path] == []
    assert killed >= 4


def test_bytes_and_name_are_on_the_disk_in_this_order(tmp_path, monkeypatch):
    """The bytes before the name, or a crash leaves an empty file; the name, or it is lost."""
    steps = []
    real_fsync, real_replace, real_link = os.fsync, os.replace, os.link

    def fsync(descriptor):
        status = os.fstat(descriptor)
        steps.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)
        real_fsync(descriptor)

    def named(real):
        def step(*arguments, **options):
            steps.append("name")
            real(*arguments, **options)

        return step

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", named(real_replace))
    monkeypatch.setattr(os, "link", named(real_link))
    replace(tmp_path / "a", b"12345")
    assert steps == [5, "name", "folder"]
    steps.clear()
    write_new(tmp_path / "b", b"123456", secret=True)
    assert steps == [6, "name", "folder"]
    steps.clear()
    make_folder(tmp_path / "c")
    assert steps == ["folder"]


@pytest.mark.parametrize(("secret", "wanted"), [(True, 0o600), (False, 0o644)])
def test_its_mode_is_never_too_wide_at_any_instant(tmp_path, monkeypatch, secret, wanted):
    """A process that opened a file can read what is written to it later."""
    modes = []
    real = os.open

    def spy(path, flags, *arguments, **options):
        descriptor = real(path, flags, *arguments, **options)
        if flags & os.O_CREAT:
            status = os.fstat(descriptor)
            modes.append((stat.S_IMODE(status.st_mode), status.st_size, bool(flags & os.O_EXCL)))
        return descriptor

    monkeypatch.setattr(os, "open", spy)
    old = os.umask(0)
    try:
        replace(tmp_path / "a", b"data", secret=secret)
        write_new(tmp_path / "b", b"data", secret=secret)
    finally:
        os.umask(old)
    assert modes == [(wanted, 0, True)] * 2
    assert (mode(tmp_path / "a"), mode(tmp_path / "b")) == (wanted, wanted)


@pytest.mark.parametrize(
    ("before", "secret", "keep", "after"),
    [
        (0o666, True, False, 0o600),
        (0o666, True, True, 0o600),
        (0o640, False, True, 0o640),
        (0o600, False, True, 0o600),
        (0o777, False, True, 0o644),
        (0o600, False, False, 0o644),
    ],
)
def test_the_mode_of_what_is_replaced_is_kept_where_wanted(tmp_path, before, secret, keep, after):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(before)
    replace(path, b"new", secret=secret, keep=keep)
    assert (mode(path), path.read_bytes()) == (after, b"new")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("keep", [True, False])
def test_the_owner_of_what_is_replaced_is_kept_where_wanted(tmp_path, keep):
    """A file that another user has put there before must not stay that user's."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 54321)
    replace(path, b"new", keep=keep)
    status = path.stat()
    own = (os.geteuid(), os.getegid())
    assert (status.st_uid, status.st_gid) == ((12345, 54321) if keep else own)


def test_a_link_is_refused_or_replaced_and_never_followed(tmp_path):
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "file"
    elsewhere.write_bytes(b"old")
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match="it is a link to a file elsewhere") as caught:
        replace(path, b"new", keep=True)
    assert caught.value.errno == errno.ELOOP
    assert path.is_symlink()
    assert write_new(path, b"new", secret=True) is False
    replace(path, b"new")
    assert not path.is_symlink()
    assert elsewhere.read_bytes() == b"old"


def test_a_draft_that_is_a_link_is_refused(tmp_path):
    elsewhere, draft = tmp_path / "elsewhere", tmp_path / "draft"
    draft.symlink_to(elsewhere)
    with pytest.raises(OSError, match="exists"):
        write_draft(draft, b"new", secret=True)
    assert not elsewhere.exists()


def test_an_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "file"
    assert write_new(path, b"first", secret=True) is True
    assert write_new(path, b"second", secret=True) is False
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_one_of_many_concurrent_writers_wins(tmp_path):
    path, barrier, won = tmp_path / "file", threading.Barrier(8), []

    def write(number):
        barrier.wait(10)
        if write_new(path, b"%d" % number, secret=True):
            won.append(b"%d" % number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert won == [path.read_bytes()]


def test_a_file_system_without_hard_links_is_named(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(NoHardLinksError, match="no hard links"):
        write_new(tmp_path / "a", b"a", secret=False)
    assert list(tmp_path.iterdir()) == []


def test_drafts_of_other_files_stay(tmp_path):
    """They may be another writer's, which holds another lock."""
    names = ("a.pem", "b.pem", "a.key")
    (tmp_path / "below").mkdir()
    for folder in (tmp_path, tmp_path / "below"):
        for name in names:
            (folder / f".secure-draft-{name}-00.tmp").write_bytes(b"half")

    def left():
        return sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*.tmp"))

    remove_drafts(tmp_path, "a.pem")
    assert len(left()) == 5
    remove_drafts(tmp_path, "*.pem", below=True)
    assert left() == [".secure-draft-a.key-00.tmp", "below/.secure-draft-a.key-00.tmp"]


def test_a_new_folder_is_its_owners_and_an_old_one_stays_as_it_is(tmp_path):
    old = os.umask(0)
    try:
        make_folder(tmp_path / "new")
    finally:
        os.umask(old)
    assert mode(tmp_path / "new") == 0o700
    (tmp_path / "new").chmod(0o755)
    make_folder(tmp_path / "new")
    assert mode(tmp_path / "new") == 0o755
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file")


def hold(path: Path, pipe) -> None:
    with locked(path):
        pipe.send("held")
        pipe.recv()


@pytest.mark.parametrize("kind", ["folder", "lock file"])
def test_a_lock_excludes_other_processes_and_threads(tmp_path, kind):
    path = tmp_path if kind == "folder" else tmp_path / "lock"
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=hold, args=(path, theirs))
    process.start()
    try:
        assert ours.recv() == "held"
        with pytest.raises(TimeoutError), locked(path, seconds=0.05):
            pytest.fail("two hold it")
        ours.send("let go")
        with locked(path, seconds=60), pytest.raises(TimeoutError), locked(path, seconds=0):
            pytest.fail("two hold it")
    finally:
        process.kill()
        process.join()
    with locked(path, seconds=0):
        assert path.exists()
    if kind == "lock file":
        assert mode(path) == 0o600


def test_the_lock_of_a_process_that_is_killed_is_free(tmp_path):
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.recv() == "held"
    process.kill()
    process.join()
    with locked(tmp_path, seconds=0):
        pass


@pytest.mark.parametrize("seconds", [None, 1.0])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, seconds):
    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(NoLocksError, match="no locks"), locked(tmp_path, seconds=seconds):
        pytest.fail("nothing is locked")


@pytest.mark.parametrize("place", ["/", "."])
def test_a_place_without_a_name_is_a_folder(place):
    for write in (replace, write_new):
        with pytest.raises(IsADirectoryError):
            write(Path(place), b"data", secret=True)
