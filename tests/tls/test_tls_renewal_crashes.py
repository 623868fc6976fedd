"""What readers see during a renewal, and what a killed one leaves."""

import stat
import subprocess
import sys
import textwrap
import threading

import pytest
from test_tls_folder import HERE, ROOT, Fault
from test_tls_renewal import LEAVES, NOW, ORDERS, assert_is_whole, folder, leaf

from secure_tls import KeyType, TLSFileError, read_client_files
from secure_tls.outcome import FileState


@pytest.fixture
def certs(tmp_path):
    folder(tmp_path).generate(ORDERS)
    return tmp_path


def test_a_watcher_never_reads_half_a_file_nor_an_open_key(certs):
    """It reads in a loop while renewals run, as a server that reloads its certificate does."""
    files = certs / "clients/billing.pem", certs / "clients/billing.key", certs / "ca.pem"
    codes, serials, last = set(), set(), []

    def watch():
        while not last or last[0] not in serials:
            try:
                serials.add(read_client_files(*files, now=NOW).leaf.serial_number)
            except TLSFileError as error:
                codes.add(error.code)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    for _ in range(30):
        folder(certs).renew(["billing"])
    last.append(leaf(files[0]).serial_number)
    watcher.join(60)
    assert last[0] in serials
    # Between the two renames the pair does not match: a watcher looks again.
    assert codes <= {"key_mismatch"}


class RenewalFault(Fault):
    STEPS = (*Fault.STEPS, "replace", "fchmod")


def assert_leaves_no_halves(path) -> None:
    """Every file is whole; drafts of a killed run have names that no program reads."""
    for file in path.rglob("[!.]*.*"):
        assert file.read_bytes().endswith(b"-----\n")
    for name in LEAVES[:2]:
        assert (path / f"{name}.pem").exists()
        assert stat.S_IMODE((path / f"{name}.key").stat().st_mode) == 0o600


def assert_repairs(path, outcomes) -> bool:
    """All files are in order now; returns whether any was repaired."""
    assert_is_whole(path)
    return any(outcome.state is FileState.REPAIRED for outcome in outcomes)


def test_O7_O9_a_disk_that_fails_at_any_step_of_a_renewal_leaves_no_half(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    number, failures, repaired = 0, [], 0
    while True:
        number += 1
        path = tmp_path / str(number)
        folder(path).generate(ORDERS[:2])
        with pytest.MonkeyPatch.context() as patch:
            fault = RenewalFault(patch, number, fail)
            try:
                folder(path).renew(["server", "billing"])
            except TLSFileError as error:
                failures.append((error.code, "No space left" in str(error)))
        assert_leaves_no_halves(path)
        if fault.count < number:
            break
        repaired += assert_repairs(path, folder(path).generate(ORDERS[:2]))
    assert len(failures) > 20
    assert set(failures) == {("unwritable", True)}
    assert repaired == 2


def test_O7_a_renewal_killed_at_any_step_is_completed_by_the_next_run_without_the_ca_key(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        sys.path[:0] = sys.argv[2:]
        import pytest
        from test_tls_renewal import ORDERS, folder
        from test_tls_renewal_crashes import RenewalFault

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        for number in range(1, 1000):
            path = Path(sys.argv[1], str(number))
            folder(path).generate(ORDERS[:2])
            child = os.fork()
            if not child:
                RenewalFault(pytest.MonkeyPatch(), number, die)
                folder(path).renew(["server", "billing"])
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                break
        print(number)
        """
    )
    command = [sys.executable, "-c", script, tmp_path, HERE, ROOT]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    runs = int(result.stdout)
    assert runs > 20
    repaired = []
    for number in range(1, runs):
        path = tmp_path / str(number)
        assert_leaves_no_halves(path)
        (path / "ca.key").unlink()
        certs = folder(path)
        if number % 3 == 0:
            outcomes = certs.generate(ORDERS[:2])
        elif number % 3 == 1:
            outcomes = certs.renew()
        else:
            outcomes = certs.add(ORDERS[0], key_type=KeyType.ECDSA_P256)
        if assert_repairs(path, outcomes):
            repaired.append(number)
    # After the first rename of each pair, and before the second.
    assert len(repaired) == 2
