"""Group U over real connections: who logs in, with what, and what a refusal does not reveal."""

import threading
import time
import unicodedata
from pathlib import Path
from statistics import median

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from services.people import (
    Person,
    Refused,
    administrator,
    at_once,
    fresh,
    newcomer,
    refused,
    without_tailer,
)
from typer.testing import CliRunner

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_server.cli.app import app
from secure_server.users import Accounts
from secure_server.users import passwords as hashing
from support.house import PASSWORD, House, running_house

REFUSED = ("UNAUTHENTICATED", "CREDENTIALS_REFUSED", "")
NOT_ALLOWED = ("PERMISSION_DENIED", "NOT_ALLOWED", "")
OTHER = "another horse, another battery"


@pytest.fixture(scope="module")
def admin(house: House, admin_token: str) -> Person:
    return administrator(house, admin_token)


@pytest.fixture(scope="module")
def alice(house: House, admin_token: str) -> Person:
    """A plain user; no test changes her password, state or session."""
    return newcomer(house, admin_token, called="alice")


def log_in(person: Person, user: str, password: str, new_password: str = "") -> tokens_pb.Tokens:
    request = tokens_pb.LoginRequest(user_name=user, password=password, new_password=new_password)
    return person.do("Login", request, "")


def change_password(person: Person, name: str, current: str, new: str) -> int:
    request = users_pb.ChangePasswordRequest(
        name=f"users/{name}", current_password=current, new_password=new
    )
    return person.do("ChangePassword", request).ended_sessions


class Hashes:
    """Stands in for Argon2id and counts what is computed."""

    def __init__(self) -> None:
        self.computed = 0

    def __call__(self, **parameters: object) -> Argon2id:
        self.computed += 1
        return Argon2id(**parameters)

    def verify_phc_encoded(self, password: bytes, phc: str) -> None:
        self.computed += 1
        Argon2id.verify_phc_encoded(password, phc)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> Hashes:
    spy = Hashes()
    monkeypatch.setattr(hashing, "Argon2id", spy)
    return spy


def test_U1_U2_a_failed_log_in_has_one_answer_whatever_the_reason(
    admin: Person, alice: Person
) -> None:
    """The same answer to the trailers, also for a disabled user with the right password."""
    disabled, no_password = fresh("off"), fresh("mute")
    admin.create(disabled, OTHER, state=users_pb.User.STATE_DISABLED)
    admin.create(no_password)
    refusals = {
        refused(log_in, alice, *attempt)
        for attempt in [
            (alice.name, "not her password"),
            (alice.name, ""),
            (fresh("missing"), PASSWORD),
            (disabled, OTHER),
            (disabled, "wrong password"),
            (disabled, OTHER, "yet another password"),
            (no_password, PASSWORD),
            (no_password, ""),
            ("Not a user name", PASSWORD),
            ("x" * 10_000, PASSWORD),
            ("", PASSWORD),
        ]
    }
    assert len(refusals) == 1, refusals
    assert refusals.pop().told == REFUSED


@pytest.mark.usefixtures("real_hashes")
def test_U1_an_unknown_user_takes_as_long_as_a_wrong_password(tmp_path: Path) -> None:
    """Medians of interleaved samples; without the decoy hash the ratio would be above 10."""
    missing = fresh("missing")
    with running_house(tmp_path) as house:
        alice = newcomer(house, house.first_log_in().access_token, called="alice")
        assert any(0.7 < ratio(alice, missing) < 1.4 for _ in range(2))


def ratio(alice: Person, missing: str) -> float:
    samples: dict[str, list[float]] = {alice.name: [], missing: []}
    for _ in range(15):
        for user, times in samples.items():
            started = time.perf_counter()
            refused(log_in, alice, user, "wrong password")
            times.append(time.perf_counter() - started)
    return median(samples[missing]) / median(samples[alice.name])


@pytest.mark.parametrize("method", ["Login", "new_password", "CreateUser", "current", "new"])
def test_U6_a_megabyte_of_password_is_invalid_and_nothing_is_hashed(
    admin: Person, alice: Person, hashes: Hashes, method: str
) -> None:
    long = "x" * 1_000_000
    refusal, field = {
        "Login": (lambda: log_in(alice, alice.name, long), "password"),
        "new_password": (lambda: log_in(alice, alice.name, PASSWORD, long), "new_password"),
        "CreateUser": (lambda: admin.create(fresh("long"), long), "password"),
        "current": (lambda: change_password(alice, alice.name, long, OTHER), "current_password"),
        "new": (lambda: change_password(alice, alice.name, PASSWORD, long), "new_password"),
    }[method]
    assert refused(refusal).told == ("INVALID_ARGUMENT", "INVALID_FIELD", field)
    assert hashes.computed == 0
    refused(log_in, alice, fresh("missing"), "short")
    assert hashes.computed == 1, "the spy sees what is computed"


@pytest.mark.parametrize(
    ("password", "beginning"),
    [
        ("🔒" * 64 + "👩‍💻", "🔒" * 64),
        ("nul\0in\0it\0\0", "nul"),
        ("x" * 1024, "x" * 72),  # where bcrypt stops
    ],
    ids=["emoji", "nul", "the longest"],
)
def test_U7_a_password_counts_whole_to_its_last_character(
    admin: Person, password: str, beginning: str
) -> None:
    name = fresh("whole")
    admin.create(name, "an initial password")
    log_in(admin, name, "an initial password", password)
    assert log_in(admin, name, password).access_token
    for other in (password[:-1], password[:-1] + "y", beginning):
        assert refused(log_in, admin, name, other).told == REFUSED


def test_U7_two_compositions_of_one_text_are_one_password(admin: Person) -> None:
    """NFC (NIST SP 800-63B-4, section 3.1.1.2): keyboards differ in how they write an accent."""
    name, text = fresh("accent"), "Crème brûlée à la carte"
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert composed != decomposed
    admin.create(name, "an initial password")
    log_in(admin, name, "an initial password", decomposed)
    assert log_in(admin, name, composed).access_token
    assert refused(log_in, admin, name, "Creme brulee a la carte").told == REFUSED


@pytest.mark.parametrize("password", ["password", "Passw0rd!", "QWERTYUIOP", "{user}", "x{USER}x"])
def test_U8_no_method_takes_a_common_password_or_the_user_name(
    admin: Person, alice: Person, password: str
) -> None:
    name = fresh("weak")
    mine, hers = (password.format(user=user, USER=user.upper()) for user in (name, alice.name))
    invalid = ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert refused(admin.create, name, mine).told == (*invalid, "password")
    assert refused(change_password, alice, alice.name, PASSWORD, hers).told == (
        *invalid,
        "new_password",
    )
    assert refused(log_in, alice, alice.name, PASSWORD, hers).told == (*invalid, "new_password")


def test_U12_without_the_current_password_nothing_changes(
    house: House, admin_token: str, admin: Person
) -> None:
    """Neither its owner nor an administrator can change it otherwise."""
    user = newcomer(house, admin_token)
    other = user.log_in()
    for current in ("", "wrong password", PASSWORD[:-1]):
        assert refused(change_password, user, user.name, current, OTHER).told == (
            "PERMISSION_DENIED",
            "WRONG_CURRENT_PASSWORD",
            "",
        )
    assert refused(change_password, admin, user.name, PASSWORD, OTHER).told == NOT_ALLOWED
    assert user.is_known(user.tokens.access_token)
    assert user.is_known(other.access_token)
    assert user.log_in().access_token


def test_U12_a_new_password_ends_all_other_sessions_at_once(
    house: House, admin_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tailer(monkeypatch)
    user = newcomer(house, admin_token)
    others = [user.log_in(), user.log_in()]
    assert all(user.is_known(other.access_token) for other in others)
    assert change_password(user, user.name, PASSWORD, OTHER) == 2
    for other in others:
        assert not user.is_known(other.access_token)
        assert refused(user.refresh, other).told == REFUSED
    assert user.is_known(user.tokens.access_token)
    assert user.is_known(user.refresh(user.tokens).access_token)
    assert refused(user.log_in, PASSWORD).told == REFUSED
    assert user.log_in(OTHER).access_token


def test_U26_a_user_name_has_one_spelling(admin: Person, alice: Person) -> None:
    """Variants in case, space and script are no users: not created, not found, not logged in."""
    name = alice.name
    for variant in (
        name.upper(),
        name.capitalize(),
        f" {name}",
        f"{name} ",
        f"{name}\n",
        f"{name}\0",
        name.replace("a", "\u0430"),  # Cyrillic
        name.replace("a", "\uff41"),  # full width
        name.replace("-", "\u2010"),
        f"{name}\u200b",
    ):
        assert refused(admin.create, variant).told == (
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "user_id",
        )
        assert refused(admin.get, f"users/{variant}").told == (
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "name",
        )
    assert refused(log_in, alice, name.upper(), PASSWORD).told == REFUSED
    assert refused(log_in, alice, f"{name}\0", PASSWORD).told == REFUSED


LAST = ("FAILED_PRECONDITION", "LAST_ADMINISTRATOR", "")


def remove_admin(by: Person, name: str, how: str) -> object:
    if how == "delete":
        return by.do("DeleteUser", users_pb.DeleteUserRequest(name=f"users/{name}"))
    if how == "disable":
        return by.update(name, ["state"], state=users_pb.User.STATE_DISABLED)
    return by.update(name, ["roles"], roles=["auditor"])


def test_U27_the_last_active_administrator_stays(tmp_path: Path) -> None:
    """A disabled administrator and plain users do not count."""
    with running_house(tmp_path) as house:
        admin = administrator(house, house.first_log_in().access_token)
        admin.create("spare", roles=["admin"], state=users_pb.User.STATE_DISABLED)
        admin.create("plain", roles=["auditor"])
        before = admin.get()
        for how in ("delete", "disable", "demote"):
            assert refused(remove_admin, admin, "admin", how).told == LAST
        assert refused(admin.update, "admin", ["*"], state=users_pb.User.STATE_ACTIVE).told == LAST
        assert admin.get() == before
        admin.update("spare", ["state"], state=users_pb.User.STATE_ACTIVE)
        remove_admin(admin, "admin", "demote")


@pytest.mark.parametrize("how", ["delete", "disable", "demote"])
def test_U27_of_two_administrators_who_remove_each_other_at_once_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with running_house(tmp_path) as house:
        token = house.first_log_in().access_token
        first, second = administrator(house, token), newcomer(house, token, "admin")
        both_are_admitted = threading.Barrier(2, timeout=30)
        verb = "delete" if how == "delete" else "update"
        real = getattr(Accounts, verb)

        def together(*arguments: object) -> object:
            both_are_admitted.wait()
            return real(*arguments)

        monkeypatch.setattr(Accounts, verb, together)
        outcomes = at_once(
            [
                lambda: remove_admin(first, second.name, how),
                lambda: remove_admin(second, first.name, how),
            ]
        )
        lost = [one for one in outcomes if isinstance(one, Refused)]
        assert [one.told for one in lost] == [LAST]
        survivor = second if isinstance(outcomes[0], Refused) else first
        assert survivor.get().roles == ["admin"]


def test_U28_there_is_no_default_account_and_the_bootstrap_secret_works_once(
    tmp_path: Path,
) -> None:
    """Of eight log-ins at once with the secret a single one gets in."""
    with running_house(tmp_path) as house:
        person = Person(house, "admin", house.admin)
        for user, password in [
            ("admin", "admin"),
            ("admin", ""),
            ("root", "root"),
        ]:
            assert refused(log_in, person, user, password).told == REFUSED

        secret = _bootstrap(house).stdout.strip()
        assert len(secret) >= 22, "at least 128 bits"
        assert refused(log_in, person, "admin", secret).told == (
            "FAILED_PRECONDITION",
            "PASSWORD_CHANGE_REQUIRED",
            "",
        )
        outcomes = at_once(
            [
                lambda number=number: log_in(person, "admin", secret, f"{PASSWORD} {number}")
                for number in range(8)
            ]
        )
        lost = [one for one in outcomes if isinstance(one, Refused)]
        assert len(lost) == 7
        assert {one.told for one in lost} == {REFUSED}
        winner = next(n for n, one in enumerate(outcomes) if not isinstance(one, Refused))
        assert person.is_known(outcomes[winner].access_token)

        assert refused(log_in, person, "admin", secret, OTHER).told == REFUSED
        assert _bootstrap(house).exit_code != 0
        assert log_in(person, "admin", f"{PASSWORD} {winner}").access_token
        loser = (winner + 1) % 8
        assert refused(log_in, person, "admin", f"{PASSWORD} {loser}").told == REFUSED


def _bootstrap(house: House):
    return CliRunner().invoke(app, ["bootstrap", "--config", str(house.config_file)])
