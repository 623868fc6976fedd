"""The rules for users, over a real store."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from sqlalchemy import select, update

from secure_server.auth import Identity
from secure_server.store import StoreUnavailableError
from secure_server.store.schema import requests, user_changes, users
from secure_server.users import AccountState, ChangeKind, Changes
from secure_server.users.errors import (
    AbortedError,
    AlreadyBootstrappedError,
    AlreadyExistsError,
    BadCredentialsError,
    FailedPreconditionError,
    InvalidArgumentError,
    LastAdministratorError,
    NotFoundError,
    PasswordChangeRequiredError,
    PermissionDeniedError,
    UserError,
)

INITIAL, CHOSEN, OTHER = "initial secret", "chosen secret", "another secret"
DAY = 24 * 3600.0


def make(accounts, name="ada", **fields):
    """A user without a password."""
    return accounts.create(name, **fields)


def enrol(accounts, logins, name):
    """A user who has chosen a password at the first log-in."""
    accounts.create(name, password=INITIAL)
    return logins.log_in(name, INITIAL, CHOSEN)


def at_once(count, call):
    """Call from ``count`` threads at once; returns the results, in which errors count too."""
    barrier = threading.Barrier(count)

    def run(index):
        barrier.wait(30)
        try:
            return call(index)
        except UserError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def stored_hash(database, name="ada"):
    with database.read() as connection:
        return connection.scalar(select(users.c.password_hash).where(users.c.name == name))


def test_a_created_user_is_read_back_whole(accounts, clock):
    made = accounts.create(
        "ada", email="ada@x.org", display_name="Ada", roles=["b", "a", "b"], state="active"
    )
    assert made == accounts.get("ada") == accounts.get_by_uid(made.uid)
    assert made.roles == ("a", "b")
    assert made.create_time == made.update_time == clock.now
    assert uuid.UUID(made.uid).version == 4
    assert made.resource_name == "users/ada"
    with pytest.raises(AlreadyExistsError):
        accounts.create("ada")


def test_unknown_users_are_not_found(accounts):
    for call in (accounts.get, accounts.get_by_uid, accounts.delete):
        with pytest.raises(NotFoundError):
            call("missing")
    with pytest.raises(NotFoundError):
        accounts.update("missing", {"email": "a@b"})


def test_a_deleted_name_comes_back_with_another_uid(accounts):
    first = make(accounts)
    accounts.delete("ada")
    assert make(accounts).uid != first.uid


def test_users_are_listed_by_name_in_pages(accounts):
    for name in ("cy", "al", "bo", "b-2"):
        make(accounts, name)
    assert [a.name for a in accounts.list("", 3)] == ["al", "b-2", "bo"]
    assert [a.name for a in accounts.list("bo", 3)] == ["cy"]


def test_updates_change_what_they_name_and_the_etag(accounts, clock):
    before = make(accounts, email="a@b", roles=["x"])
    clock.now += 5
    after = accounts.update("ada", {"display_name": "Ada"}, before.etag)
    assert (after.display_name, after.email, after.roles) == ("Ada", "a@b", ("x",))
    assert after.update_time == clock.now
    assert after.etag != before.etag
    assert accounts.get("ada") == after


def test_u22_a_stale_etag_is_aborted(accounts):
    stale = make(accounts).etag
    accounts.update("ada", {"email": "a@b"})
    with pytest.raises(AbortedError):
        accounts.update("ada", {"email": "c@d"}, stale)
    with pytest.raises(AbortedError):
        accounts.delete("ada", stale)
    assert accounts.get("ada").email == "a@b"


@pytest.mark.parametrize("field", ["password_hash", "uid", "name", "etag", "create_time", "*", ""])
def test_u21_other_fields_cannot_be_changed(accounts, field):
    make(accounts)
    with pytest.raises(InvalidArgumentError) as caught:
        accounts.update("ada", {field: "x"})
    assert caught.value.field == "update_mask"


def test_an_update_without_a_difference_does_nothing(accounts, ended):
    before = make(accounts, roles=["a", "b"])
    assert accounts.update("ada", {"roles": ["b", "a"], "state": "active"}) == before
    assert ended == []


@pytest.mark.parametrize(
    ("changes", "ends"),
    [({"roles": ["x"]}, True), ({"state": AccountState.DISABLED}, True), ({"email": "a@b"}, False)],
)
def test_disabling_and_other_roles_end_the_sessions(accounts, ended, changes, ends):
    uid = make(accounts).uid
    accounts.update("ada", changes)
    assert ended == ([(uid, None)] if ends else [])


def test_deleting_ends_the_sessions(accounts, ended):
    uid = make(accounts).uid
    accounts.delete("ada")
    assert ended == [(uid, None)]


def test_what_cannot_end_the_sessions_does_not_happen(accounts, monkeypatch):
    before = make(accounts)

    def fail(*_):
        raise StoreUnavailableError("FAILED", "Not now.")

    monkeypatch.setattr(accounts, "_end_sessions", fail)
    with pytest.raises(StoreUnavailableError):
        accounts.update("ada", {"state": "disabled"})
    assert accounts.get("ada") == before


# --- U23: request ids -------------------------------------------------------------------------


def test_u23_the_same_request_gets_the_same_user(accounts, logins, clock):
    request = {"email": "a@b", "password": INITIAL, "request_id": str(uuid.uuid4())}
    first = accounts.create("ada", caller=Identity("https://us", "root"), **request)
    logins.log_in("ada", INITIAL, CHOSEN)
    assert accounts.create("ada", caller=Identity("https://us", "root"), **request) == first
    with pytest.raises(AlreadyExistsError):  # Scoped to the caller.
        accounts.create("ada", caller=Identity("https://us", "mallory"), **request)
    clock.now += DAY + 1
    with pytest.raises(AlreadyExistsError):  # Forgotten after a day.
        accounts.create("ada", caller=Identity("https://us", "root"), **request)


@pytest.mark.parametrize(
    "other",
    [
        {"user_id": "bob"},
        {"email": "x@y"},
        {"roles": ["admin"]},
        {"state": "disabled"},
        {"password": OTHER},
        {"password": None},
    ],
)
def test_u23_another_body_under_the_same_id_is_invalid(accounts, other):
    request = {"user_id": "ada", "password": INITIAL, "request_id": str(uuid.uuid4())}
    accounts.create(**request)
    with pytest.raises(InvalidArgumentError) as caught:
        accounts.create(**{**request, **other})
    assert caught.value.field == "request_id"


def test_u23_the_same_request_many_times_at_once_makes_one_user(accounts):
    request_id = str(uuid.uuid4())
    made = at_once(6, lambda _: accounts.create("ada", password=INITIAL, request_id=request_id))
    assert len(set(made)) == 1


def test_u17_what_remembers_a_request_is_no_quick_test_for_its_password(accounts, database):
    from secure_server.users.requests import digest

    accounts.create("ada", password=INITIAL, request_id=str(uuid.uuid4()))
    with database.read() as connection:
        row = connection.execute(select(requests)).one()
    assert row.digest == digest("ada", "", "", (), "active", True)  # No password in it.
    assert row.password_hash == stored_hash(database)


# --- log-in -----------------------------------------------------------------------------------


def test_u1_u2_every_reason_has_one_error(accounts, logins, clock):
    enrol(accounts, logins, "ada")
    enrol(accounts, logins, "off")
    accounts.update("off", {"state": "disabled"})
    make(accounts, "none")
    accounts.create("late", password=INITIAL)
    clock.now += 7 * DAY
    texts = set()
    for name, password in [
        ("ada", "wrong secret"),
        ("missing", CHOSEN),
        ("off", CHOSEN),
        ("none", CHOSEN),
        ("late", INITIAL),
        ("ADA", CHOSEN),
        ("a\0", CHOSEN),
        ("ada", ""),
    ]:
        with pytest.raises(BadCredentialsError) as caught:
            logins.log_in(name, password)
        texts.add((str(caught.value), caught.value.code))
    assert len(texts) == 1


def test_the_right_password_logs_in(accounts, logins):
    account = enrol(accounts, logins, "ada")
    assert logins.log_in("ada", CHOSEN) == account


def test_a_login_with_too_long_a_password_is_invalid(logins):
    with pytest.raises(InvalidArgumentError):
        logins.log_in("missing", "x" * 1025)


def test_an_initial_password_must_be_replaced_and_works_once(accounts, logins, clock):
    accounts.create("ada", password=INITIAL)
    clock.now += 7 * DAY - 1
    for _ in range(2):  # Asking does not use it up.
        with pytest.raises(PasswordChangeRequiredError) as caught:
            logins.log_in("ada", INITIAL)
        assert caught.value.code == "PASSWORD_CHANGE_REQUIRED"
    logins.log_in("ada", INITIAL, CHOSEN)
    with pytest.raises(BadCredentialsError):
        logins.log_in("ada", INITIAL, OTHER)
    clock.now += 700 * DAY
    assert logins.log_in("ada", CHOSEN)


@pytest.mark.parametrize("new", [INITIAL, "password", "short", "ada-ada-ada-x", "x" * 1025])
def test_the_replacement_must_keep_the_rules(accounts, logins, new):
    accounts.create("ada", password=INITIAL)
    for name in ("ada", "ada-missing"):  # No difference gives the user away.
        if name in new or name == "ada":
            with pytest.raises(InvalidArgumentError) as caught:
                logins.log_in(name, INITIAL, new)
            assert caught.value.field == "new_password"
    assert logins.log_in("ada", INITIAL, CHOSEN)


def test_an_initial_password_works_once_of_ten_at_once(accounts, logins):
    accounts.create("ada", password=INITIAL)
    results = at_once(10, lambda i: logins.log_in("ada", INITIAL, f"chosen secret {i}"))
    winners = [i for i, result in enumerate(results) if not isinstance(result, UserError)]
    assert len(winners) == 1
    assert {type(r) for r in results if isinstance(r, UserError)} == {BadCredentialsError}
    assert logins.log_in("ada", f"chosen secret {winners[0]}")


def test_a_normal_password_is_not_changed_by_a_login(accounts, logins):
    enrol(accounts, logins, "ada")
    with pytest.raises(BadCredentialsError):
        logins.log_in("ada", "wrong secret", OTHER)
    with pytest.raises(InvalidArgumentError) as caught:
        logins.log_in("ada", CHOSEN, OTHER)
    assert caught.value.field == "new_password"
    assert logins.log_in("ada", CHOSEN)


def test_u9_old_hashes_are_made_new_at_the_login_even_of_five_at_once(accounts, logins, database):
    enrol(accounts, logins, "ada")
    old = Argon2id(salt=bytes(16), length=32, iterations=2, lanes=1, memory_cost=128)
    with database.write() as connection:
        connection.execute(
            update(users).values(password_hash=old.derive_phc_encoded(CHOSEN.encode()))
        )
    etag = accounts.get("ada").etag
    results = at_once(5, lambda _: logins.log_in("ada", CHOSEN))
    assert not any(isinstance(result, UserError) for result in results)
    assert "m=64,t=1,p=1" in stored_hash(database)
    assert accounts.get("ada").etag == etag  # The user has not changed for any reader.


def test_what_a_login_opens_depends_on_the_password_still_being_good(accounts, logins, passwords):
    """The password is changed between its verification and the transaction of the log-in."""
    enrol(accounts, logins, "ada")
    opened = []
    assert logins.log_in("ada", CHOSEN, on_success=lambda c, a: opened.append(a.name))
    assert opened == ["ada"]

    real = passwords.verify

    def verify_then_change(stored, password):
        answer = real(stored, password)
        passwords.verify = real
        logins.change_password("ada", CHOSEN, OTHER)
        return answer

    passwords.verify = verify_then_change
    with pytest.raises(BadCredentialsError):
        logins.log_in("ada", CHOSEN, on_success=lambda c, a: opened.append(a.name))
    assert opened == ["ada"]


def test_a_login_whose_session_fails_does_not_use_up_the_initial_password(accounts, logins):
    accounts.create("ada", password=INITIAL)

    def fail(connection, account):
        raise StoreUnavailableError("FAILED", "Not now.")

    with pytest.raises(StoreUnavailableError):
        logins.log_in("ada", INITIAL, CHOSEN, on_success=fail)
    assert logins.log_in("ada", INITIAL, CHOSEN)


# --- change of password -----------------------------------------------------------------------


def test_u12_a_new_password_needs_the_old_and_ends_the_other_sessions(accounts, logins, ended):
    before = enrol(accounts, logins, "ada")
    ended.clear()
    with pytest.raises(PermissionDeniedError):
        logins.change_password("ada", "wrong secret", OTHER)
    assert ended == []
    assert logins.change_password("ada", CHOSEN, OTHER, keep_session="s1") == 3
    assert ended == [(before.uid, "s1")]
    assert logins.log_in("ada", OTHER).etag != before.etag
    with pytest.raises(BadCredentialsError):
        logins.log_in("ada", CHOSEN)


def test_u12_a_user_who_cannot_log_in_cannot_change_the_password(accounts, logins):
    enrol(accounts, logins, "off")
    accounts.update("off", {"state": "disabled"})
    accounts.create("new", password=INITIAL)
    for name, password in (("off", CHOSEN), ("new", INITIAL), ("missing", CHOSEN)):
        with pytest.raises(PermissionDeniedError):
            logins.change_password(name, password, OTHER)


@pytest.mark.parametrize("new", [CHOSEN, "password", "short"])
def test_a_new_password_keeps_the_rules(accounts, logins, new):
    enrol(accounts, logins, "ada")
    with pytest.raises(InvalidArgumentError) as caught:
        logins.change_password("ada", CHOSEN, new)
    assert caught.value.field == "new_password"


def test_two_changes_of_one_password_at_once_make_one(accounts, logins):
    enrol(accounts, logins, "ada")
    results = at_once(2, lambda i: logins.change_password("ada", CHOSEN, f"brand new {i}"))
    assert sum(isinstance(result, PermissionDeniedError) for result in results) == 1


# --- administrators ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "remove",
    [
        lambda accounts, name: accounts.delete(name),
        lambda accounts, name: accounts.update(name, {"state": "disabled"}),
        lambda accounts, name: accounts.update(name, {"roles": []}),
    ],
)
def test_u27_the_last_active_administrator_stays_even_of_two_at_once(accounts, remove):
    make(accounts, "root", roles=["admin"])
    make(accounts, "boss", roles=["admin", "x"])
    make(accounts, "idle", roles=["admin"], state="disabled")
    results = at_once(2, lambda i: remove(accounts, ("root", "boss")[i]))
    errors = [result for result in results if isinstance(result, UserError)]
    assert [type(error) for error in errors] == [LastAdministratorError]
    assert isinstance(errors[0], FailedPreconditionError)
    assert sum(account.is_active_admin for account in accounts.list("", 10)) == 1
    accounts.delete("idle")


def test_the_last_administrator_may_change_otherwise(accounts):
    make(accounts, "root", roles=["admin"])
    assert accounts.update("root", {"email": "a@b", "roles": ["admin", "x"]})


def test_u28_the_bootstrap_secret_makes_one_administrator_and_works_once(accounts, logins):
    account = accounts.bootstrap("root", "first one-time secret")
    assert account.is_active_admin
    # Lost before it was used: replaced, and the first is dead.
    assert accounts.bootstrap("root", "second one-time secret").uid == account.uid
    with pytest.raises(BadCredentialsError):
        logins.log_in("root", "first one-time secret")
    with pytest.raises(AlreadyBootstrappedError):
        accounts.bootstrap("other", "third one-time secret")
    logins.log_in("root", "second one-time secret", CHOSEN)
    with pytest.raises(AlreadyBootstrappedError):
        accounts.bootstrap("root", "third one-time secret")
    with pytest.raises(BadCredentialsError):
        logins.log_in("root", "second one-time secret", OTHER)


def test_u28_bootstrap_never_raises_an_existing_user(accounts, logins):
    enrol(accounts, logins, "root")
    with pytest.raises(AlreadyExistsError):
        accounts.bootstrap("root", "first one-time secret")
    assert accounts.get("root").roles == ()


def test_an_expired_bootstrap_secret_can_be_replaced(accounts, logins, clock):
    accounts.bootstrap("root", "first one-time secret")
    clock.now += 8 * DAY
    accounts.bootstrap("root", "second one-time secret")
    with pytest.raises(PasswordChangeRequiredError):
        logins.log_in("root", "second one-time secret")


# --- what is told -----------------------------------------------------------------------------


def test_every_mutation_is_told_in_order(accounts, logins, database, clock):
    accounts.create("ada", password=INITIAL)
    logins.log_in("ada", INITIAL, CHOSEN)
    logins.change_password("ada", CHOSEN, OTHER)
    accounts.update("ada", {"email": "a@b"})
    last = accounts.update("ada", {"state": "disabled"})
    accounts.delete("ada")
    told = Changes(database, clock=clock).after(0, 10)
    assert [c.kind for c in told] == [
        ChangeKind.CREATED,
        *[ChangeKind.UPDATED] * 4,
        ChangeKind.DELETED,
    ]
    assert [c.number for c in told] == [1, 2, 3, 4, 5, 6]
    assert told[-1].account == told[-2].account == last
    assert len({c.account.etag for c in told}) == 5


def test_u29_no_secret_in_a_repr_or_in_what_is_told(accounts, logins, database):
    accounts.create("ada", password=INITIAL, request_id=str(uuid.uuid4()))
    record = logins._find("ada")
    with database.read() as connection:
        told = str(connection.execute(select(user_changes)).all())
        kept = str(connection.execute(select(requests.c.result)).all())
    for shown in (repr(record), repr(record.account), told, kept):
        assert "argon2" not in shown
        assert INITIAL not in shown
