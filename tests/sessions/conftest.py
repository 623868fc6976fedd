import os
import subprocess
import sys

import pytest
from sessions.principals import ISSUER
from sqlalchemy import insert

from secure_server.store import Database
from secure_server.store.schema import users
from secure_server.tokens.revocations import Revocations
from secure_server.tokens.session_endings import SessionEndings
from secure_server.tokens.sessions import Sessions

IDLE, ABSOLUTE, ACCESS = 1000.0, 5000.0, 300.0


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
    return f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture
def database(url):
    opened = Database.open(url)
    with opened.write() as connection:
        for uid, state in (("u1", "active"), ("u2", "active"), ("off", "disabled")):
            connection.execute(
                insert(users).values(
                    uid=uid,
                    name=uid,
                    email="",
                    display_name="",
                    roles=[],
                    is_admin=False,
                    state=state,
                    create_time=0.0,
                    update_time=0.0,
                    etag="",
                )
            )
    yield opened
    opened.close()


@pytest.fixture
def endings(database, clock):
    return SessionEndings(database, issuer=ISSUER, clock=clock, access_token_lifetime=ACCESS)


@pytest.fixture
def sessions(database, endings, clock):
    return Sessions(
        database,
        endings,
        issuer=ISSUER,
        clock=clock,
        idle_lifetime=IDLE,
        absolute_lifetime=ABSOLUTE,
    )


@pytest.fixture
def revocations(database, clock):
    feed = Revocations(database, issuer=ISSUER, clock=clock)
    feed.start()
    yield feed
    feed.close()


@pytest.fixture
def run():
    """Run code in a second process and return its output."""

    def start(code, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    return start
