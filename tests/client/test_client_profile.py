"""Profiles, settings and the files that hold a session."""

import os
import pickle
import stat
import threading
from pathlib import Path

import pytest

from secure_client import AccessToken, ConfigurationError, ProfileError, find_connection
from secure_client._private_files import locked, write_private
from secure_client.profile import Profile
from secure_client.session import Session

SESSION = Session("alice", "a:1", AccessToken("access-secret", 5.0), "refresh-secret", 9.0)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def profile(tmp_path, name="default"):
    return Profile.named(name, {"XDG_CONFIG_HOME": str(tmp_path)})


def test_the_folder_follows_the_xdg_specification(tmp_path):
    home = {"HOME": str(tmp_path)}
    assert Profile.named(environ=home).folder == tmp_path / ".config/secure-client"
    relative = home | {"XDG_CONFIG_HOME": "config"}
    assert Profile.named(environ=relative).folder == tmp_path / ".config/secure-client"
    absolute = home | {"XDG_CONFIG_HOME": str(tmp_path / "x")}
    assert Profile.named(environ=absolute).folder == tmp_path / "x/secure-client"


def test_the_name_comes_from_the_argument_then_the_environment():
    environ = {"HOME": "/h", "SECURE_CLIENT_PROFILE": "work"}
    assert Profile.named("mine", environ).name == "mine"
    assert Profile.named(environ=environ).name == "work"
    assert Profile.named(environ={"HOME": "/h"}).name == "default"


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "a\n", "-x", "x" * 64, "é"])
def test_a_name_cannot_leave_the_folder(name):
    with pytest.raises(ConfigurationError, match="no name for a profile"):
        Profile.named(name, {"HOME": "/h"})


@pytest.mark.parametrize(
    "text", ["plain", 'quo"te', "back\\slash", "line\nbreak", "\x7f\x01", "emoji 😀", "ünï"]
)
def test_every_text_survives_the_file(tmp_path, text):
    found = profile(tmp_path)
    found.save({"target": text, "ca": "/ca.pem"})
    assert found.load() == {"target": text, "ca": "/ca.pem"}
    assert mode(found.path) == 0o600
    assert mode(found.folder) == 0o700


def test_a_missing_profile_is_empty(tmp_path):
    assert profile(tmp_path).load() == {}
    assert profile(tmp_path).session.load() is None


@pytest.mark.parametrize("text", ["target =", "other = 'x'", "target = 5", "[target]\nx = 1"])
def test_a_profile_that_makes_no_sense_is_refused(tmp_path, text):
    found = profile(tmp_path)
    found.save({})
    found.path.write_text(text)
    with pytest.raises(ProfileError, match=r"default\.toml") as caught:
        found.load()
    assert caught.value.path == found.path


def test_a_profile_that_others_can_write_is_refused(tmp_path):
    found = profile(tmp_path)
    found.save({"target": "a:1"})
    found.path.chmod(0o622)
    with pytest.raises(ProfileError, match="chmod 600"):
        found.load()
    found.path.chmod(0o644)
    assert found.load() == {"target": "a:1"}


def test_a_session_survives_the_file(tmp_path):
    file = profile(tmp_path).session
    file.save(SESSION)
    assert file.load() == SESSION
    assert mode(file.path) == 0o600
    file.remove()
    assert file.load() is None
    file.remove()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644])
def test_C11_a_session_that_others_can_read_is_refused(tmp_path, bits):
    file = profile(tmp_path).session
    file.save(SESSION)
    file.path.chmod(bits)
    with pytest.raises(ProfileError, match="chmod 600") as caught:
        file.load()
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_C11_a_session_of_another_user_is_refused(tmp_path):
    file = profile(tmp_path).session
    file.save(SESSION)
    os.chown(file.path, 12345, -1)
    with pytest.raises(ProfileError, match="another user"):
        file.load()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{", '{"user": 1}', "\xff", "[" * 99999])
def test_a_damaged_session_is_refused_without_being_quoted(tmp_path, text):
    file = profile(tmp_path).session
    file.save(SESSION)
    file.path.write_text(text, encoding="latin-1")
    with pytest.raises(ProfileError, match="damaged"):
        file.load()


def test_C9_a_session_shows_no_secret():
    assert "secret" not in repr(SESSION)
    with pytest.raises(TypeError):
        pickle.dumps(SESSION)


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_private(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ProfileError, match="No space left"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_is_private_whatever_the_old_one_was(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o666)
    write_private(path, b"new")
    assert mode(path) == 0o600


def test_the_lock_excludes_threads_and_its_file_stays(tmp_path):
    path = tmp_path / "lock"
    inside, most = 0, 0
    guard = threading.Lock()

    def work():
        nonlocal inside, most
        for _ in range(20):
            with locked(path, tmp_path / "file"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == 1
    assert path.exists()


def test_a_lock_that_is_never_given_back_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr("secure_client._private_files._LOCK_PATIENCE", 0.0)
    path = tmp_path / "lock"
    with (
        locked(path, tmp_path / "file"),
        pytest.raises(ProfileError, match="locked by another"),
        locked(path, tmp_path / "file"),
    ):
        pass


def test_C11_what_a_killed_process_left_of_a_session_is_deleted_under_the_lock(tmp_path):
    """It may hold a refresh token. A draft of another profile may be one that is being written."""
    file = profile(tmp_path).session
    file.save(SESSION)
    left = file.path.with_name(f".secure-draft-{file.path.name}-00.tmp")
    other = file.path.with_name(".secure-draft-other.session.json-00.tmp")
    left.write_bytes(b"half a session")
    other.write_bytes(b"half a session")
    with file.lock():
        assert not left.exists()
    assert other.exists()


# Which setting wins


@pytest.fixture
def defaults(tmp_path):
    folder = tmp_path / "here"
    (folder / "certs/clients").mkdir(parents=True)
    for name in ("ca.pem", "clients/admin.pem", "clients/admin.key"):
        (folder / "certs" / name).touch()
    return folder


def find(tmp_path, *, flags=None, environ=None, saved=None, folder=None):
    base = {"XDG_CONFIG_HOME": str(tmp_path / "x")} | (environ or {})
    found = Profile.named(environ=base)
    if saved:
        found.save(saved)
    return find_connection(
        flags, profile=found, environ=base, folder=folder or tmp_path / "nowhere"
    )


def test_the_first_five_minutes_need_no_flags(tmp_path, defaults):
    found = find(tmp_path, folder=defaults)
    assert found.target == "localhost:50051"
    assert found.ca == defaults / "certs/ca.pem"
    assert found.certificate == defaults / "certs/clients/admin.pem"
    assert found.private_key == defaults / "certs/clients/admin.key"


def test_flag_before_environment_before_profile_before_default(tmp_path, defaults):
    layers = {
        "flags": {"target": "flag:1"},
        "environ": {"SECURE_CLIENT_TARGET": "environ:1"},
        "saved": {"target": "profile:1"},
    }
    for expected in ("flag:1", "environ:1", "profile:1"):
        assert find(tmp_path, folder=defaults, **layers).target == expected
        layers.pop(next(iter(layers)))


def test_empty_settings_count_as_absent(tmp_path, defaults):
    found = find(
        tmp_path, folder=defaults, flags={"target": ""}, environ={"SECURE_CLIENT_TARGET": ""}
    )
    assert found.target == "localhost:50051"


def test_a_pair_is_taken_from_one_place(tmp_path, defaults):
    environ = {"SECURE_CLIENT_CERTIFICATE": "e.pem", "SECURE_CLIENT_PRIVATE_KEY": "e.key"}
    saved = {"certificate": "/p.pem", "private_key": "/p.key"}
    found = find(tmp_path, folder=defaults, environ=environ, saved=saved)
    assert (found.certificate, found.private_key) == (Path("e.pem"), Path("e.key"))
    with pytest.raises(ConfigurationError, match="go together"):
        find(tmp_path, folder=defaults, flags={"certificate": "f.pem"}, saved=saved)


def test_without_a_ca_there_is_no_connection(tmp_path):
    with pytest.raises(ConfigurationError, match="--ca FILE"):
        find(tmp_path)


def test_what_a_profile_keeps_works_from_everywhere(tmp_path, defaults, monkeypatch):
    monkeypatch.chdir(defaults)
    kept = find_connection({"server_name": "s"}).settings()
    assert kept["ca"] == str(defaults / "certs/ca.pem")
    assert kept["private_key"] == str(defaults / "certs/clients/admin.key")
    assert kept["server_name"] == "s"
