"""Rules for passwords, and the cost of hashing them."""

import os
import threading
import unicodedata

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from secure_server.users import Passwords
from secure_server.users import passwords as module
from secure_server.users.errors import InvalidArgumentError, OverloadedError
from secure_server.users.password_rules import check_new_password


def check(password):
    check_new_password(password, user_name="alice")


def test_u6_a_megabyte_is_refused_before_any_hashing(passwords, monkeypatch):
    monkeypatch.setattr(passwords, "_run", None)
    for use in (passwords.hash, lambda p: passwords.verify(None, p), check):
        with pytest.raises(InvalidArgumentError):
            use("x" * 1_000_000)


@pytest.mark.parametrize(
    "password", ["x" * 1024, "👩‍💻🔒", "\0" * 8, "a\0bcdefgh", "é" * 512, " " * 9]
)
def test_u7_whatever_fits_is_accepted_whole(passwords, password):
    check(password)
    stored = passwords.hash(password)
    assert passwords.verify(stored, password)
    for other in (password[:-1], password + "x", password[:-1] + "y"):
        if len(other.encode()) <= 1024:
            assert not passwords.verify(stored, other)


@pytest.mark.parametrize("password", ["x" * 1025, "é" * 513, "1234567", "", "ééé", "\ud800" * 8])
def test_too_long_too_short_and_no_text_are_refused(password):
    with pytest.raises(InvalidArgumentError) as caught:
        check(password)
    assert caught.value.field == "password"


@pytest.mark.parametrize(
    "password", ["password", "PassWord1", "iloveyou", "QWERTYUIOP", "Passw0rd!"]
)
def test_u8_common_passwords_are_refused(password):
    with pytest.raises(InvalidArgumentError, match="attackers"):
        check(password)


@pytest.mark.parametrize("password", ["alice-in-wonderland", "xxALICExx"])
def test_u8_the_user_name_is_refused(password):
    with pytest.raises(InvalidArgumentError, match="user name"):
        check(password)


def test_the_list_has_only_what_could_be_chosen():
    """Shorter entries, capitals and other normal forms could never match."""
    from secure_server.users.password_rules import _common_passwords

    assert len(_common_passwords()) > 300
    for word in _common_passwords():
        assert len(word.encode()) >= 8
        assert word == unicodedata.normalize("NFC", word).casefold()


def test_both_spellings_of_an_accent_are_one_password(passwords):
    """NIST SP 800-63B-4, section 3.1.1.2: NFC."""
    composed, decomposed = "caf\u00e9 au lait", "cafe\u0301 au lait"
    assert passwords.verify(passwords.hash(composed), decomposed)
    # But not NFKC: it would make different characters one.
    assert not passwords.verify(passwords.hash("x\u00b2 + y\u00b2 = z\u00b2"), "x2 + y2 = z2")


@pytest.mark.usefixtures("real_hashes")
def test_the_shipped_cost_is_owasps_and_salts_differ():
    with_cost = Passwords()
    first = with_cost.hash("correct horse")
    assert first.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    Argon2id.verify_phc_encoded(b"correct horse", first)
    assert not with_cost.needs_rehash(first)
    with_cost.close()


def test_u1_unknown_users_cost_the_same_work(passwords, monkeypatch):
    """Each verification computes one hash of the same parameters, whatever is stored."""
    computed = []

    class Spy:
        @staticmethod
        def verify_phc_encoded(password, phc):
            computed.append(phc.rsplit("$", 2)[0])
            Argon2id.verify_phc_encoded(password, phc)

    stored = passwords.hash("right password")
    monkeypatch.setattr(module, "Argon2id", Spy)
    answers = [
        passwords.verify(against, guess)
        for against, guess in [
            (stored, "right password"),
            (stored, "wrong password"),
            (None, "right password"),
            ("{SSHA}garbage", "right password"),
        ]
    ]
    assert answers == [True, False, False, False]
    assert len(computed) == 4
    assert len(set(computed)) == 1


@pytest.mark.parametrize(
    "parameters",
    ["m=4194304,t=1,p=1", "m=65536,t=9999,p=1", "m=65536,t=1,p=255", "m=8,t=1,p=4", "m=0,t=1,p=1"],
)
def test_u10_absurd_parameters_are_refused_not_computed(passwords, parameters, monkeypatch):
    stored = passwords.hash("some password").replace("m=64,t=1,p=1", parameters)
    real = Argon2id.verify_phc_encoded

    class Spy:
        @staticmethod
        def verify_phc_encoded(password, phc):
            assert parameters not in phc
            real(password, phc)

    monkeypatch.setattr(module, "Argon2id", Spy)
    assert not passwords.verify(stored, "some password")


def test_u9_old_parameters_verify_and_ask_for_a_rehash(passwords):
    old = Argon2id(salt=os.urandom(16), length=32, iterations=2, lanes=1, memory_cost=128)
    stored = old.derive_phc_encoded(b"some password")
    assert passwords.verify(stored, "some password")
    assert passwords.needs_rehash(stored)


def test_u11_more_than_may_wait_is_refused_at_once(monkeypatch):
    passwords = Passwords(workers=1, waiting=2, weak_hashes_for_tests=True)
    running, go_on = threading.Semaphore(0), threading.Event()

    def block(stored, encoded):
        running.release()
        return go_on.wait(60)

    monkeypatch.setattr(passwords, "_check", block)
    threads = [threading.Thread(target=passwords.verify, args=(None, "x")) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert running.acquire(timeout=30)
    deadline = threading.Event()
    while passwords._places._value:  # Until the last thread has its place.
        deadline.wait(0.001)
    with pytest.raises(OverloadedError):
        passwords.verify(None, "x")
    go_on.set()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    assert passwords.verify(passwords.hash("x"), "x")
    passwords.close()
    with pytest.raises(OverloadedError):
        passwords.hash("x")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_hashing_uses_the_cores_that_were_handed_in():
    """A process pinned to one core must not hash on it alone; the caller's thread is not moved."""
    cpus = os.sched_getaffinity(0)

    def pinned():
        os.sched_setaffinity(0, {min(cpus)})  # 0 is this thread only.
        passwords = Passwords(workers=1, cpus=cpus, weak_hashes_for_tests=True)
        inside.append(passwords._run(lambda: os.sched_getaffinity(0)))
        inside.append(os.sched_getaffinity(0))
        passwords.close()

    inside = []
    thread = threading.Thread(target=pinned)
    thread.start()
    thread.join()
    assert inside == [cpus, {min(cpus)}]


def test_cores_that_do_not_exist_do_no_harm():
    passwords = Passwords(cpus={100_000}, weak_hashes_for_tests=True)
    assert passwords.verify(passwords.hash("x"), "x")
    passwords.close()


@pytest.mark.parametrize("password", ["bobbobbob", "bob12345", "BOBpassBOB"])
def test_u8_a_short_user_name_is_refused_where_little_is_left_without_it(password):
    with pytest.raises(InvalidArgumentError):
        check_new_password(password, user_name="bob")


@pytest.mark.parametrize(
    ("user_name", "password"),
    [("a", "a battery and a staple"), ("ada", "5b6ada94-random-7f3e"), ("io", "violin concertos")],
)
def test_a_short_user_name_may_stand_in_a_password_that_is_long_enough_without_it(
    user_name, password
):
    check_new_password(password, user_name=user_name)
