"""A folder is completed, never overwritten, and never left with half a file or pair."""

import os
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import pytest

import secure_tls
from secure_base.atomic_files import write_new
from secure_tls import (
    Authority,
    AuthorityError,
    TLSFileError,
    check_trust_domain,
    read_server_files,
)
from secure_tls.check import check_folder
from secure_tls.folder import CertificateFolder, Order
from secure_tls.keys import KeyType

ORDERS = [Order.server("server", ["localhost"], stem="server"), Order.client("demo")]
HERE = Path(__file__).parent
ROOT = Path(secure_tls.__file__).parent.parent
FILES = {"ca.key", "ca.pem", "server.key", "server.pem", "demo.key", "demo.pem", "crl.pem"}


def generate(path, **options):
    return CertificateFolder(path).generate(ORDERS, **options)


def add(path, order):
    return CertificateFolder(path).add(order, key_type=KeyType.ECDSA_P256)


def state(path):
    """Every file with its bytes, inode and time of change."""
    return {
        file: (file.read_bytes(), file.stat().st_ino, file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file()
    }


def assert_is_sound(path) -> None:
    findings = check_folder(path, now=time.time())
    assert [finding for finding in findings if finding.problems] == []
    assert {file.name for file in path.rglob("*") if file.is_file()} == FILES


def assert_refused(code, act, *arguments, **options):
    with pytest.raises(TLSFileError) as caught:
        act(*arguments, **options)
    assert caught.value.code == code
    assert str(caught.value.path) in str(caught.value)


def test_a_new_folder_is_complete_and_sound(tmp_path):
    outcomes = generate(tmp_path / "a" / "certs")
    assert all(outcome.created for outcome in outcomes)
    assert {outcome.path.name for outcome in outcomes} == FILES
    assert_is_sound(tmp_path / "a" / "certs")


def test_O7_a_second_run_changes_nothing(tmp_path):
    generate(tmp_path)
    before = state(tmp_path)
    outcomes = generate(tmp_path, lifetime=timedelta(days=1), trust_domain="example.org")
    assert not any(outcome.created for outcome in outcomes)
    assert state(tmp_path) == before


@pytest.mark.parametrize("lost", ["server", "clients/demo"])
def test_what_is_missing_is_completed_and_the_rest_kept(tmp_path, lost):
    generate(tmp_path)
    for suffix in (".pem", ".key"):
        (tmp_path / lost).with_suffix(suffix).unlink()
    before = state(tmp_path)
    created = {o.path for o in generate(tmp_path) if o.created}
    assert created == {(tmp_path / lost).with_suffix(suffix) for suffix in (".pem", ".key")}
    assert {file: kept for file, kept in state(tmp_path).items() if file in before} == before
    assert_is_sound(tmp_path)


def test_a_lost_revocation_list_is_completed(tmp_path):
    generate(tmp_path)
    (tmp_path / "crl.pem").unlink()
    assert [o.path.name for o in generate(tmp_path) if o.created] == ["crl.pem"]


@pytest.mark.parametrize("name", ["ca", "server", "clients/demo"])
def test_a_key_that_a_killed_run_left_alone_is_certified_not_replaced(tmp_path, name):
    other = tmp_path / "other"
    generate(other)
    path = tmp_path / "certs" / f"{name}.key"
    path.parent.mkdir(parents=True)
    write_new(path, (other / f"{name}.key").read_bytes(), secret=True)
    before = state(tmp_path / "certs")
    generate(tmp_path / "certs")
    assert before.items() <= state(tmp_path / "certs").items()
    assert_is_sound(tmp_path / "certs")


def test_T22_a_key_that_others_could_read_is_not_certified(tmp_path):
    generate(tmp_path)
    (tmp_path / "server.pem").unlink()
    (tmp_path / "server.key").chmod(0o644)
    assert_refused("key_permissions", generate, tmp_path)


def test_a_certificate_whose_key_is_gone_is_refused_before_anything_is_written(tmp_path):
    generate(tmp_path)
    (tmp_path / "clients/demo.key").unlink()
    for file in ("server.pem", "server.key"):
        (tmp_path / file).unlink()
    before = state(tmp_path)
    assert_refused("half_pair", generate, tmp_path)
    assert_refused("half_pair", add, tmp_path, Order.client("demo"))
    assert state(tmp_path) == before


def test_an_authority_is_not_made_under_leaves_that_it_did_not_sign(tmp_path):
    generate(tmp_path)
    (tmp_path / "ca.pem").unlink()
    assert_refused("no_ca", generate, tmp_path)


def test_with_the_authoritys_key_kept_elsewhere_nothing_is_needed_but_new_leaves(tmp_path):
    generate(tmp_path)
    key = tmp_path / "ca.key"
    saved = key.read_bytes()
    key.unlink()
    assert not any(o.created for o in generate(tmp_path, trust_domain="example.org"))
    assert_refused("no_ca_key", add, tmp_path, Order.client("new"))
    assert not list(tmp_path.rglob("new*"))
    write_new(key, saved, secret=True)
    assert all(o.created for o in add(tmp_path, Order.client("new")))


def test_a_folder_belongs_to_one_trust_domain(tmp_path):
    generate(tmp_path, trust_domain="a.example.org")
    with pytest.raises(AuthorityError, match=r"a\.example\.org"):
        generate(tmp_path, trust_domain=check_trust_domain("b.example.org"))


def test_an_added_leaf_needs_an_authority(tmp_path):
    assert_refused("no_ca", add, tmp_path / "none", Order.client("a"))
    assert not (tmp_path / "none").exists()


def test_an_added_server_serves(tmp_path):
    generate(tmp_path)
    certificate, key = (o.path for o in add(tmp_path, Order.server("api", ["api.example.org"])))
    assert certificate == tmp_path / "servers" / "api.pem"
    assert read_server_files(certificate, key, tmp_path / "ca.pem")


def test_a_dangling_link_is_not_written_through(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/ca.key").symlink_to(elsewhere)
    assert_refused("missing", generate, tmp_path / "certs")
    assert not elsewhere.exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_O7_T22_keys_are_0600_under_any_umask(tmp_path, umask):
    script = (
        "import os, sys; os.umask(int(sys.argv.pop(1))); from secure_tls.cli import main; main()"
    )
    command = [sys.executable, "-c", script, str(umask), "--out", tmp_path / "certs"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    for path in (tmp_path / "certs").rglob("*"):
        mode = path.stat().st_mode & 0o777
        if path.is_dir():
            assert mode == 0o700
        elif path.suffix == ".key":
            assert mode == 0o600
        else:
            assert mode & 0o133 == 0
    assert (tmp_path / "certs").stat().st_mode & 0o777 == 0o700


def test_O7_a_key_is_private_before_its_first_byte(tmp_path, monkeypatch):
    modes = []
    real = os.fdopen

    def spy(descriptor, *arguments):
        modes.append((os.fstat(descriptor).st_mode & 0o777, os.fstat(descriptor).st_size))
        return real(descriptor, *arguments)

    monkeypatch.setattr(os, "fdopen", spy)
    old = os.umask(0)
    try:
        write_new(tmp_path / "a.key", b"secret", secret=True)
    finally:
        os.umask(old)
    assert modes == [(0o600, 0)]


class Fault:
    """Make the n-th step that reaches the disk fail."""

    STEPS = ("open", "fsync", "link", "unlink")

    def __init__(self, patch, number, fail) -> None:
        self.number, self.count = number, 0
        for name in self.STEPS:
            patch.setattr(os, name, self._wrap(getattr(os, name), fail))

    def _wrap(self, real, fail):
        def step(*arguments, **options):
            self.count += 1
            if self.count == self.number:
                fail()
            return real(*arguments, **options)

        return step


def assert_holds_no_halves(path) -> None:
    """Every file is whole; no certificate is without its key."""
    for file in path.rglob("*"):
        if file.suffix in {".pem", ".key"}:
            assert file.read_bytes().endswith(b"-----\n")
        if file.suffix == ".pem" and file.name != "crl.pem":
            assert file.with_suffix(".key").exists()


def test_O7_O9_a_disk_that_fails_at_any_step_leaves_no_half(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    number, failures = 0, []
    while True:
        number += 1
        path = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, number, fail)
            try:
                generate(path)
            except TLSFileError as error:
                failures.append((error.code, "No space left" in str(error)))
        assert_holds_no_halves(path)
        if fault.count < number:
            break
        generate(path)
        assert_is_sound(path)
    assert len(failures) > 25
    assert set(failures) == {("unwritable", True)}


def test_O7_a_run_killed_at_any_step_leaves_no_half_and_is_completed_by_the_next(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys, time
        from pathlib import Path
        sys.path[:0] = sys.argv[2:]
        import pytest
        from test_tls_folder import Fault, generate

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        for number in range(1, 1000):
            child = os.fork()
            if not child:
                Fault(pytest.MonkeyPatch(), number, die)
                generate(Path(sys.argv[1], str(number)))
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                break
        print(number)
        """
    )
    command = [sys.executable, "-c", script, tmp_path, HERE, ROOT]

    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    runs = int(result.stdout)
    assert runs > 30
    for number in range(1, runs):
        path = tmp_path / str(number)
        if path.exists():
            assert_holds_no_halves(path)
        generate(path)
        assert_is_sound(path)


def race(path, commands):
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "secure_tls", "--out", path, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in commands
    ]
    return [(run.communicate(timeout=100), run.returncode) for run in runs]


def test_O7_eight_runs_at_once_agree_on_one_set(tmp_path):
    results = race(tmp_path / "certs", [("--client", "demo")] * 8)
    assert [code for _, code in results] == [0] * 8
    assert_is_sound(tmp_path / "certs")
    created = sum(out.count("created") for (out, _), _ in results)
    assert created == len(FILES)


def test_O7_runs_at_once_agree_even_where_there_are_no_locks(tmp_path):
    script = textwrap.dedent(
        """
        import fcntl, os, sys
        from pathlib import Path

        def no_locks(*_):
            raise OSError(95, "Operation not supported")

        fcntl.flock = no_locks
        sys.path[:0] = sys.argv[2:]
        from test_tls_folder import generate

        for number in range(20):
            children = []
            for _ in range(6):
                child = os.fork()
                if not child:
                    try:
                        generate(Path(sys.argv[1], str(number)))
                    except BaseException as error:
                        print(error, flush=True)
                        os._exit(1)
                    os._exit(0)
                children.append(child)
            for child in children:
                os.waitpid(child, 0)
        """
    )
    command = [sys.executable, "-c", script, tmp_path, HERE, ROOT]

    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert result.stdout == ""
    for number in range(20):
        assert_is_sound(tmp_path / str(number))


def test_drafts_of_a_killed_run_are_deleted(tmp_path):
    generate(tmp_path)
    leftover = tmp_path / "clients" / ".secure-draft-a.key-0123456789abcdef.tmp"
    leftover.write_bytes(b"half a key")
    generate(tmp_path)
    assert not leftover.exists()


def test_a_file_system_without_hard_links_is_explained(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(1, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(TLSFileError, match="no hard links: choose another folder with --out"):
        generate(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "certs").write_text("")
    assert_refused("unwritable", generate, tmp_path / "certs")
    assert_refused("unwritable", generate, tmp_path / "certs" / "below")


def test_an_expired_authority_is_named(tmp_path):
    old = Authority.create("example.org", lifetime=timedelta(hours=1), clock=lambda: 1e9)
    write_new(tmp_path / "ca.pem", old.certificate_pem, secret=False)
    write_new(tmp_path / "ca.key", old.private_key_pem, secret=True)
    assert_refused("expired", generate, tmp_path)
