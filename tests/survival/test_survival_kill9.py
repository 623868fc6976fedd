"""O8: kill -9 at any moment, and no acknowledged write is lost."""

import pytest

from benchmarks.kill9 import Figures, Kill9
from support.benchmark import run_benchmark
from support.running import Installation


@pytest.mark.timeout(300)
def test_o8_no_acknowledged_write_is_lost_by_kill_9():
    figures = run_benchmark("benchmarks.survival", "--rounds", "3", timeout=280)
    assert figures["rounds"] == 3
    assert figures["acknowledged"] > 0
    assert {name: figures[name] for name in ("lost", "changed", "duplicated", "disordered")} == {
        "lost": 0,
        "changed": 0,
        "duplicated": 0,
        "disordered": 0,
    }
    assert figures["unannounced"] == 0


# The check must detect violations, or a count of zero means nothing.


@pytest.fixture
def kill9(tmp_path):
    return Kill9(Installation(tmp_path), seed=1, writers=1)


def test_the_check_sees_a_write_that_the_feed_lacks(kill9):
    kill9._compare_feed(["users/a"], [["users/a", "users/b"]])
    assert kill9.figures == Figures(lost={"users/b"})


def test_the_check_sees_a_write_that_comes_twice(kill9):
    kill9._compare_feed(["users/a", "users/b", "users/a"], [["users/b"]])
    assert kill9.figures == Figures(duplicated={"users/a"})


def test_the_check_sees_writes_in_another_order(kill9):
    kill9._compare_feed(["users/b", "users/a"], [["users/a", "users/b"]])
    assert kill9.figures == Figures(disordered={"users/b"})


def test_the_check_sees_a_record_that_is_gone_or_changed(kill9):
    from secure_api.users.v1.user_service_pb2 import User

    kill9._compare(User(name="users/a"), None)
    kill9._compare(User(name="users/b"), User(name="users/b", email="b@example.org"))
    kill9._compare(User(name="users/c"), User(name="users/c"))
    assert kill9.figures == Figures(lost={"users/a"}, changed={"users/b"})
    assert kill9.figures.wrong == {"users/a", "users/b"}
