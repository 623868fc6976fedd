"""Group U: sessions, refresh tokens, and what is refused at the very next call."""

import base64
import sqlite3
import subprocess
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from services.people import (
    Person,
    administrator,
    at_once,
    fresh,
    newcomer,
    refused,
    without_tailer,
)

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_server.tokens import sessions as sessions_module
from support.house import Client, House, running_house

REFUSED = ("UNAUTHENTICATED", "CREDENTIALS_REFUSED", "")
DAY = 86_400.0


@pytest.fixture
def user(house: House, admin_token: str, monkeypatch: pytest.MonkeyPatch) -> Person:
    without_tailer(monkeypatch)
    return newcomer(house, admin_token)


def test_U13_a_refresh_token_used_twice_ends_the_whole_family(
    user: Person, log: list[dict[str, object]]
) -> None:
    """Its access tokens are refused at the next call, other sessions stay alive; it is audited."""
    other = user.log_in()
    second = user.refresh(user.tokens)
    third = user.refresh(second)
    assert user.is_known(user.tokens.access_token)
    assert user.is_known(third.access_token)
    assert refused(user.refresh, user.tokens).told == REFUSED
    for tokens in (user.tokens, second, third):
        assert not user.is_known(tokens.access_token)
        assert refused(user.refresh, tokens).told == REFUSED
    assert user.is_known(other.access_token)
    assert user.refresh(other).access_token
    (line,) = [line for line in log if line.get("reason") == "REFRESH_TOKEN_REUSED"]
    assert line["event"] == "refresh refused"
    assert line["session"]
    request = users_pb.GetUserRequest(name=user.resource)
    assert line["user"] == user.do("GetUser", request, other.access_token).uid


def test_U15_of_two_refreshes_at_once_both_get_the_next_token_of_one_live_family(
    user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw the valid token before either was answered: no theft, so no revocation."""
    both_have_looked, looks = threading.Barrier(2, timeout=30), []
    real = sessions_module.Sessions._find

    def find(*arguments: object) -> object:
        found = real(*arguments)
        looks.append(1)
        if len(looks) <= 2:
            both_have_looked.wait()
        return found

    monkeypatch.setattr(sessions_module.Sessions, "_find", find)
    one, other = at_once([lambda: user.refresh(user.tokens)] * 2)
    assert one.refresh_token == other.refresh_token
    assert user.is_known(one.access_token)
    assert user.is_known(other.access_token)
    assert user.refresh(one).access_token


def test_U15_many_refreshes_at_once_lead_to_one_live_refresh_token(user: Person) -> None:
    """In every order: a family never has two valid refresh tokens."""
    outcomes = at_once([lambda: user.refresh(user.tokens)] * 8)
    assert len({one.refresh_token for one in outcomes}) == 1
    assert user.refresh(outcomes[0]).access_token


class Clock:
    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


def _log_in_for_weeks(house: House) -> Person:
    house.client("weeks", timedelta(days=45))
    token = house.first_log_in().access_token
    return Person(house, "weeks", house.client("weeks"), house.make_user(token, "weeks"))


def test_U14_a_refresh_whose_answer_was_lost_is_repeated_and_its_grandparent_revokes(
    tmp_path: Path,
) -> None:
    """For 30 seconds. After that the used token counts as stolen; from another SPIFFE ID it does at
    once.
    """
    clock = Clock()
    with running_house(tmp_path, clock=clock) as house:
        person = _log_in_for_weeks(house)

        first = person.tokens
        second = person.refresh(first)
        clock.offset += 29
        again = person.refresh(first)
        assert again.refresh_token == second.refresh_token
        assert person.is_known(again.access_token)
        third = person.refresh(second)
        assert refused(person.refresh, first).told == REFUSED
        for tokens in (second, again, third):
            assert not person.is_known(tokens.access_token)
            assert refused(person.refresh, tokens).told == REFUSED

        first = person.log_in()
        second = person.refresh(first)
        clock.offset += 31
        assert refused(person.refresh, first).told == REFUSED
        assert not person.is_known(second.access_token)
        assert refused(person.refresh, second).told == REFUSED

        first = person.log_in()
        second = person.refresh(first)
        thief = Person(house, "thief", house.client("thief"))
        assert refused(thief.refresh, first).told == REFUSED
        assert not person.is_known(second.access_token)


def test_U16_a_session_ends_when_it_is_idle(tmp_path: Path) -> None:
    """By default 7 days after the last refresh; each refresh begins the 7 days again."""
    clock = Clock()
    with running_house(tmp_path, clock=clock) as house:
        person = _log_in_for_weeks(house)
        tokens = person.tokens
        for _ in range(2):
            ends = tokens.refresh_token_expire_time.seconds
            assert ends == pytest.approx(clock() + 7 * DAY, abs=30)
            clock.offset += 7 * DAY - 60
            tokens = person.refresh(tokens)
            assert person.is_known(tokens.access_token)
        clock.offset += 7 * DAY + 60
        assert refused(person.refresh, tokens).told == REFUSED
        clock.offset -= 2 * DAY
        assert not person.is_known(tokens.access_token)


def test_U16_a_session_ends_however_busy(tmp_path: Path) -> None:
    """By default 30 days after the log-in, and the caller knows the time beforehand."""
    clock = Clock()
    with running_house(tmp_path, clock=clock) as house:
        person = _log_in_for_weeks(house)
        began, tokens = clock(), person.tokens
        for _ in range(5):
            clock.offset += 6 * DAY - 60
            tokens = person.refresh(tokens)
        ends = tokens.refresh_token_expire_time.seconds
        assert ends == pytest.approx(began + 30 * DAY, abs=30)
        clock.offset += 5 * 60 + 60
        assert refused(person.refresh, tokens).told == REFUSED


def test_U17_a_stolen_database_has_nothing_to_log_in_with(house: House, user: Person) -> None:
    """No password, no token, no part of one; and no stored value works as a token."""
    other = user.refresh(user.log_in())
    path = house.root / "store.db"
    # By another process: closing the file in this one would drop SQLite's locks on it.
    stolen = subprocess.check_output(["cat", *path.parent.glob("store.db*")])
    assert user.name.encode() in stolen, "this is where users are"
    assert user.password.encode() not in stolen
    for tokens in (user.tokens, other):
        token = tokens.refresh_token
        raw = base64.urlsafe_b64decode(token + "=")
        assert len(raw) == 32
        for secret in (token.encode(), raw, raw[:12], raw[12:], raw.hex().encode()):
            assert secret not in stolen
        for part in tokens.access_token.split("."):
            assert part.encode() not in stolen

    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT family_hash, token_hash FROM sessions").fetchall()
    connection.close()
    assert rows
    for family, token in rows[-2:]:
        for guess in (token, family, family[:12] + token[:20]):
            text = base64.urlsafe_b64encode(guess).rstrip(b"=").decode()
            assert refused(user.refresh, text).told == REFUSED
    assert user.refresh(other).access_token, "guessing has ended nothing"


def test_U18_a_refresh_token_opens_no_call_and_an_access_token_refreshes_nothing(
    user: Person,
) -> None:
    assert not user.is_known(user.tokens.refresh_token)
    assert refused(user.refresh, user.tokens.access_token).told == REFUSED
    jwt_parts = user.tokens.access_token.split(".")
    assert refused(user.refresh, jwt_parts[2][:43]).told == REFUSED
    assert user.is_known(user.tokens.access_token)
    assert user.refresh(user.tokens).access_token


def test_U19_after_the_logout_the_next_call_is_refused(user: Person) -> None:
    """Every token of the session, and no other session."""
    other, renewed = user.log_in(), user.refresh(user.tokens)
    user.do("Logout", tokens_pb.LogoutRequest(), renewed.access_token)
    for tokens in (renewed, user.tokens):
        assert not user.is_known(tokens.access_token)
        assert refused(user.refresh, tokens).told == REFUSED
    assert user.is_known(other.access_token)
    assert user.refresh(other).access_token


def test_U19_a_workload_without_a_session_logs_its_token_out(house: House) -> None:
    workload = Person(house, "workload", house.client("workload"))
    first, second = (
        workload.do("IssueToken", tokens_pb.IssueTokenRequest(), "").access_token for _ in range(2)
    )
    workload.do("Logout", tokens_pb.LogoutRequest(), first)
    assert not workload.is_known(first)
    assert workload.is_known(second)


def test_a_session_survives_the_renewal_of_its_certificate(house: House, user: Person) -> None:
    """The refresh token is bound to the SPIFFE ID; access tokens to the certificate."""
    renewed = Client(house.authority.issue_client(user.name))
    assert renewed.thumbprint != user.client.thumbprint
    after = Person(house, user.name, renewed)
    assert not after.is_known(user.tokens.access_token)
    tokens = after.refresh(user.tokens)
    assert after.me(tokens.access_token).certificate.thumbprint == renewed.thumbprint
    assert not user.is_known(tokens.access_token)


def test_a_refresh_token_in_the_hands_of_another_spiffe_id_ends_its_session(
    house: House, user: Person, log: list[dict[str, object]]
) -> None:
    """The thief gets nothing. The server cannot tell the two apart, so both are logged out."""
    other = user.log_in()
    name = fresh("thief")
    thief = Person(house, name, house.client(name))
    assert refused(thief.refresh, user.tokens).told == REFUSED
    assert not user.is_known(user.tokens.access_token)
    assert refused(user.refresh, user.tokens).told == REFUSED
    assert user.refresh(other).access_token
    (line,) = [line for line in log if line.get("reason") == "REFRESH_TOKEN_STOLEN"]
    assert line["peer"] == f"spiffe://example.org/client/{name}"


def test_a_refresh_of_a_user_who_has_just_been_deleted_is_refused_like_any_other(
    house: House, admin_token: str, user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the user is deleted between the refresh and the read of the account."""
    admin = administrator(house, admin_token)
    real = sessions_module.Sessions.rotate

    def rotate(*arguments: object) -> object:
        session = real(*arguments)
        admin.do("DeleteUser", users_pb.DeleteUserRequest(name=user.resource))
        return session

    monkeypatch.setattr(sessions_module.Sessions, "rotate", rotate)
    refusal = refused(user.refresh, user.tokens)
    monkeypatch.undo()
    assert refusal == refused(user.refresh, user.tokens)
    assert refusal.told == REFUSED
