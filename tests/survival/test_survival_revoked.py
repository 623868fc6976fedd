"""O8: kill -9 at any step of a revocation, and no acknowledged revocation is served."""

import sqlite3
import subprocess
import sys
import time
from itertools import product

import jwt
import pytest

from benchmarks.dying import Step
from benchmarks.revoked_figures import Figures
from benchmarks.revoked_people import Credential, Kind, Revocation, Way
from benchmarks.revoked_plan import plan
from benchmarks.revoked_rounds import Rounds
from support.benchmark import ROOT, run_benchmark


@pytest.mark.timeout(300)
def test_o8_no_acknowledged_revocation_is_served_after_kill_9():
    words = ["benchmarks.revoked", "--rounds", "2", "--seed", "7"]
    figures = run_benchmark(*words, timeout=280)
    assert figures["by_step"]["written"]["rounds"] == 1
    assert figures["by_step"]["answered"] == {"rounds": 1, "told": 1}
    assert (figures["rounds"], figures["told"], figures["in_doubt"]) == (2, 3, 1)
    assert figures["checks"] > 50
    wrong = ("revoked_but_served", "served_wrongly_refused", "disagreed", "late")
    assert {name: figures[name] for name in wrong} == dict.fromkeys(wrong, 0)


def test_a_hundred_rounds_have_every_step_for_every_kind_and_way():
    plans = [plan(number) for number in range(100)]
    assert {each[:3] for each in plans} == set(product(Step, Kind, Way))
    # And the other process dies at every step too.
    assert {each.step for each in plans if each.both} == set(Step) - {Step.OTHER}


WRITER = """
import os, signal, sqlite3, sys
from benchmarks.sqlite_files import watch

def die(access):
    if (access.file, access.kind, access.done) == ("wal", *eval(sys.argv[2])) and ready:
        access.half()
        os.kill(os.getpid(), signal.SIGKILL)

ready = False
watch(die)
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("CREATE TABLE told (number)")
database.execute("BEGIN IMMEDIATE")
database.execute("INSERT INTO told VALUES (1)")
ready = True
database.execute("COMMIT")
"""


@pytest.mark.parametrize(
    ("last", "there"),
    [(("write", False), []), (("sync", False), [(1,)]), (("sync", True), [(1,)])],
)
def test_a_process_dies_in_the_middle_of_its_commit(tmp_path, last, there):
    path = tmp_path / "some.db"
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(path), repr(last)], cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == -9
    database = sqlite3.connect(path)
    assert database.execute("SELECT number FROM told").fetchall() == there
    database.close()


# The check must detect violations, or a count of zero means nothing.


def credential(**fields):
    token = jwt.encode({"jti": "t", "sid": "s", "exp": time.time() + 300}, "k" * 32)
    fields = {"user": "alice", "client": "laptop", "refresh_token": "r"} | fields
    return Credential("a", token=token, **fields)


@pytest.fixture
def rounds(tmp_path):
    return Rounds(tmp_path, seed=1)


@pytest.mark.parametrize(
    ("told", "served", "expected"),
    [
        (None, True, {}),
        (None, False, {"served_wrongly_refused": {"a"}}),
        (True, True, {"revoked_but_served": {"a"}}),
        (True, False, {}),
        (False, True, {"disagreed": {"a"}}),
        (False, False, {}),
    ],
)
def test_the_check_sees_every_violation(rounds, told, served, expected):
    each = credential()
    if told is not None:
        each.end(Revocation(Kind.USER, "alice"), told=told, since=1.0)
    rounds._compare(each, served=served)
    assert rounds.figures == Figures(**expected)
    assert rounds.figures.wrong == set().union(*expected.values())


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Kind.TOKEN, "t"), (Kind.SESSION, "s"), (Kind.USER, "alice"), (Kind.CLIENT, "laptop")],
)
def test_a_revocation_covers_what_it_names_and_ends_sessions_unless_it_is_of_a_token(kind, value):
    each = credential()
    assert not each.is_meant_by(Revocation(kind, "another"))
    assert each.is_meant_by(Revocation(kind, value))
    each.end(Revocation(kind, value), told=True, since=1.0)
    assert each.session_ended is (kind is not Kind.TOKEN)
