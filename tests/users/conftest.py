import pytest

from secure_server.store import Database
from secure_server.users import Accounts, Logins, Passwords


class Clock:
    """A clock that moves only when a test sets it."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/users.db"


@pytest.fixture
def database(url):
    opened = Database.open(url)
    yield opened
    opened.close()


@pytest.fixture
def passwords():
    made = Passwords(workers=4, waiting=64, weak_hashes_for_tests=True)
    yield made
    made.close()


@pytest.fixture
def ended():
    """The (uid, except_session) whose sessions were ended."""
    return []


@pytest.fixture
def end_sessions(ended):
    def end(connection, uid, except_session):
        assert connection.in_transaction()
        ended.append((uid, except_session))
        return 3

    return end


@pytest.fixture
def accounts(database, passwords, clock, end_sessions):
    return Accounts(database, passwords, clock=clock, end_sessions=end_sessions)


@pytest.fixture
def logins(database, passwords, clock, end_sessions):
    return Logins(database, passwords, clock=clock, end_sessions=end_sessions)
