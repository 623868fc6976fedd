"""The file of the signing keys: private, whole at any moment, and no process's change is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from secure_server.tokens.key_file import KeyFile
from secure_server.tokens.key_ring import VERIFIES_FOR, KeyRing
from secure_server.tokens.signing_key import SigningKeyError

NOW = 1_790_000_000.5
PASSPHRASE = "correct-horse-battery-staple-by-chance"


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "signing-key.pem")


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_text(PASSPHRASE + "\n")
    return path


def bare(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)


def rotated(ring: KeyRing) -> KeyRing:
    return ring.rotated(NOW, 0)


# --- made and read ---


def test_the_first_key_is_made_private_and_read_again(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "state" / "signing-key.pem")
    made = file.open(NOW)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert file.open(NOW).key_id == made.key_id
    assert [each.name for each in file.path.parent.iterdir()] == ["signing-key.pem"]


def test_eight_processes_that_start_at_once_agree_on_one_key(file: KeyFile) -> None:
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: file.open(NOW), range(8)))
    assert len({ring.key_id for ring in rings}) == 1


def test_what_was_written_is_what_is_read(file: KeyFile) -> None:
    file.open(NOW)
    written = file.change(lambda ring: ring.rotated(NOW, 600), NOW)
    read = file.read(NOW)
    assert [(e.key.key_id, e.state, e.since, e.until) for e in read.entries] == [
        (e.key.key_id, e.state, e.since, e.until) for e in written.entries
    ]
    numbers = [e.key.private_key.private_numbers() for e in read.entries]
    assert numbers == [e.key.private_key.private_numbers() for e in written.entries]


def test_a_bare_key_of_an_older_version_is_the_first_of_the_ring_and_survives_rotations(
    file: KeyFile,
) -> None:
    """It counts from when its file was written, for nothing else is known of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    write(file.path, bare(key))
    os.utime(file.path, (NOW - 5000, NOW - 5000))
    ring = file.open(NOW)
    assert ring.signing.private_key.private_numbers() == key.private_numbers()
    assert ring.signing.signs_from == int(NOW - 5000)
    after = file.change(rotated, NOW)
    assert set(after.keys) == {ring.key_id, after.key_id}
    assert set(file.read(NOW).keys) == {ring.key_id, after.key_id}


def test_a_bare_key_whose_file_is_from_the_future_signs_and_can_be_rotated(file: KeyFile) -> None:
    write(file.path, bare(ec.generate_private_key(ec.SECP256R1())))
    os.utime(file.path, (NOW + 5000, NOW + 5000))
    first = file.open(NOW)
    assert first.signing.signs_from == int(NOW)
    assert file.change(rotated, NOW).key_id != first.key_id


def test_other_tools_read_the_file(file: KeyFile) -> None:
    """Text around PEM is explanatory (RFC 7468, section 2)."""
    ring = file.open(NOW)
    key = serialization.load_pem_private_key(file.path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.private_numbers() == ring.signing.private_key.private_numbers()


def test_K8_a_dead_key_leaves_the_file_with_the_next_change(file: KeyFile) -> None:
    first = file.open(NOW)
    file.change(rotated, NOW)
    assert first.key_id in file.path.read_text()
    file.change(lambda ring: ring, NOW + VERIFIES_FOR + 1)
    assert first.key_id not in file.path.read_text()
    assert file.path.read_text().count("BEGIN") == 1


def test_files_of_others_in_subfolders_are_left_alone(tmp_path: Path, file: KeyFile) -> None:
    """`secure-certs` has a lock of its own there."""
    draft = tmp_path / "certs" / ".secure-certs-0123.tmp"
    draft.parent.mkdir()
    draft.touch()
    file.open(NOW)
    file.change(rotated, NOW)
    assert draft.exists()


# --- refused ---


def test_a_file_that_others_can_read_is_refused_with_what_to_do(file: KeyFile) -> None:
    file.open(NOW)
    for mode in (0o640, 0o604, 0o610):
        file.path.chmod(mode)
        with pytest.raises(SigningKeyError, match=r"signing-key\.pem.*chmod 600"):
            file.open(NOW)
        with pytest.raises(SigningKeyError, match=r"signing-key\.pem.*chmod 600"):
            file.change(rotated, NOW)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no private key in PEM"),
        ("nonsense", "holds no private key in PEM"),
        ("-----BEGIN PRIVATE KEY-----\n", "its last private key is cut short"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "not a private key"),
    ],
)
def test_a_file_that_is_no_key_is_refused_by_name(file: KeyFile, text: str, reason: str) -> None:
    write(file.path, text.encode())
    with pytest.raises(SigningKeyError, match=rf"signing-key\.pem: {reason}"):
        file.open(NOW)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), None])
def test_J23_a_key_of_another_kind_is_refused(
    file: KeyFile, curve: ec.EllipticCurve | None
) -> None:
    key = ec.generate_private_key(curve) if curve else rsa.generate_private_key(65537, 2048)
    write(file.path, bare(key))
    with pytest.raises(SigningKeyError, match=r"signing-key\.pem: .*P-256"):
        file.open(NOW)


def test_a_file_that_is_cut_short_anywhere_is_never_a_ring_without_its_signing_key(
    file: KeyFile,
) -> None:
    """But for where the first key ends and nothing of the second has been written yet."""
    file.open(NOW)
    ring = file.change(rotated, NOW)
    whole = file.path.read_bytes()
    first = whole.index(b"-----END PRIVATE KEY-----") + len(b"-----END PRIVATE KEY-----\n")
    for length in range(first + 5, len(whole)):
        file.path.write_bytes(whole[:length])
        try:
            assert file.read(NOW).key_id == ring.key_id
        except SigningKeyError:
            assert length < len(whole) - 1


@pytest.mark.parametrize("line", ["Signs-From: tomorrow", "Published: 2026-99-01T00:00:00Z"])
def test_an_invalid_time_is_refused_and_shown(file: KeyFile, line: str) -> None:
    file.open(NOW)
    name = line.partition(":")[0]
    file.path.write_text(re.sub(rf"{name}: .*", line, file.path.read_text()))
    with pytest.raises(
        SigningKeyError, match=r"signing-key\.pem: '(tomorrow|2026-99.*)' is no time"
    ):
        file.read(NOW)


def test_one_key_twice_is_refused(file: KeyFile) -> None:
    ring = file.open(NOW)
    file.path.write_text(file.path.read_text() * 2)
    with pytest.raises(SigningKeyError, match=f"holds the key {ring.key_id} twice"):
        file.read(NOW)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SigningKeyError, match="The signing key cannot be made"):
        KeyFile(tmp_path / "state" / "signing-key.pem").open(NOW)


def test_a_link_is_read_and_not_replaced(tmp_path: Path, file: KeyFile) -> None:
    """Kubernetes mounts secrets as links, and rotates them itself."""
    elsewhere = KeyFile(tmp_path / "elsewhere.pem")
    ring = elsewhere.open(NOW)
    file.path.symlink_to(elsewhere.path)
    assert file.open(NOW).key_id == ring.key_id
    with pytest.raises(SigningKeyError, match="is a link to a file elsewhere"):
        file.change(rotated, NOW)
    assert set(elsewhere.read(NOW).keys) == {ring.key_id}


# --- encrypted ---


def test_with_a_passphrase_no_key_lies_there_in_the_clear(
    file: KeyFile, passphrase_file: Path
) -> None:
    encrypted = KeyFile(file.path, passphrase_file)
    ring = encrypted.open(NOW)
    after = encrypted.change(rotated, NOW)
    labels = re.findall(r"BEGIN (.*)-----", file.path.read_text())
    assert labels == ["ENCRYPTED PRIVATE KEY"] * 2
    assert set(encrypted.read(NOW).keys) == {ring.key_id, after.key_id}
    assert PASSPHRASE not in file.path.read_text()


def test_turning_encryption_on_encrypts_what_there_is_at_the_next_change(
    file: KeyFile, passphrase_file: Path
) -> None:
    ring = file.open(NOW)
    encrypted = KeyFile(file.path, passphrase_file)
    assert encrypted.open(NOW).key_id == ring.key_id
    assert "ENCRYPTED" not in file.path.read_text()
    encrypted.change(lambda same: same, NOW)
    assert "BEGIN PRIVATE KEY" not in file.path.read_text()
    assert encrypted.read(NOW).key_id == ring.key_id


def test_an_encrypted_file_without_the_passphrase_says_which_setting_is_missing(
    file: KeyFile, passphrase_file: Path
) -> None:
    KeyFile(file.path, passphrase_file).open(NOW)
    with pytest.raises(SigningKeyError, match=r"is encrypted\. .*signing_key_passphrase_file"):
        file.open(NOW)


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        ("x" * 40, 0o600, r"signing-key\.pem: the passphrase in \S+passphrase does not open"),
        ("too short", 0o600, r"passphrase has less than 32 characters.*openssl rand"),
        (PASSPHRASE, 0o640, r"others can read the passphrase.*chmod 600"),
        (None, 0, r"passphrase: No such file"),
    ],
    ids=["wrong", "short", "readable", "missing"],
)
def test_a_wrong_passphrase_is_one_sentence_that_does_not_quote_it(
    file: KeyFile, passphrase_file: Path, text: str | None, mode: int, reason: str
) -> None:
    encrypted = KeyFile(file.path, passphrase_file)
    encrypted.open(NOW)
    if text is None:
        passphrase_file.unlink()
    else:
        passphrase_file.write_text(text)
        passphrase_file.chmod(mode)
    before = file.path.read_bytes()
    with pytest.raises(SigningKeyError, match=reason) as caught:
        encrypted.open(NOW)
    assert text is None or text not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(SigningKeyError):
        encrypted.change(rotated, NOW)
    assert file.path.read_bytes() == before


# --- whatever happens ---

# Forked, because a process that starts anew takes longer than all that is killed here.
_KILLED = """
import os, signal, sys
from pathlib import Path
from secure_server.tokens.key_file import KeyFile

NOW = 1_790_000_000

def killed_at(line, step):
    "Run a step in a process that dies before its line of this number; False where it lives."
    child = os.fork()
    if child == 0:
        left = line
        def trace(frame, event, argument):
            nonlocal left
            code = frame.f_code
            writes = code.co_filename.endswith("atomic_files.py")
            if not (writes or code.co_name in ("change", "_make")):
                return None  # nothing is written there
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)
        step()
        sys.settrace(None)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, status
    return os.WIFSIGNALED(status)

def survives(step, prepare):
    "Kill a step at each of its lines; return for each whether its change was there."
    changed = []
    was_killed = True
    while was_killed:
        file = KeyFile(Path(sys.argv[1]) / step.__name__ / str(len(changed)) / "key.pem")
        before = prepare(file)
        was_killed = killed_at(len(changed), lambda: step(file))
        after = file.open(NOW)
        new = after.keys.keys() - before
        assert before <= after.keys.keys() and len(new) < 2
        assert after.key_id in (new or before)
        changed.append(bool(new))
        file.change(lambda ring: ring, NOW)
        assert os.listdir(file.path.parent) == ["key.pem"], "what was left behind is swept up"
    return changed

def make(file):
    file.open(NOW)

def rotate(file):
    file.change(lambda ring: ring.rotated(NOW, 0), NOW)

made = survives(make, lambda file: set())
assert len(made) > 30 and all(made)
changed = survives(rotate, lambda file: set(file.open(NOW).keys))
assert len(changed) > 30 and changed == sorted(changed), changed
assert not changed[0] and changed[-2], changed
"""


def test_O8_kill_9_at_every_step_leaves_a_ring_that_works_and_loses_no_key(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


_AT_ONCE = """
import os, sys
from pathlib import Path
from secure_server.tokens.key_file import KeyFile

NOW = 1_790_000_000
file = KeyFile(Path(sys.argv[1]) / "signing-key.pem")
first = file.open(NOW)
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        for _ in range(5):
            file.change(lambda ring: ring.rotated(NOW, 0), NOW)
        os._exit(0)
    children.append(child)
seen = 0
while children:
    ring = file.read(NOW)  # a reader sees a whole ring at any moment
    assert first.key_id in ring.keys and len(ring.keys) >= seen
    seen = len(ring.keys)
    child, status = os.waitpid(children[0], os.WNOHANG)
    assert status == 0
    if child:
        children.pop(0)
assert len(file.read(NOW).keys) == 41, len(file.read(NOW).keys)
"""


def test_processes_that_rotate_at_once_lose_no_key_of_each_other(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AT_ONCE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
