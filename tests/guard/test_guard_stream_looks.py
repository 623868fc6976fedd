"""When the watch decides about a stream again, and what it does to one that may not go on.

The streams are none of gRPC's: they note what is done to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secure_server.auth import AuthenticatorUnavailable, Credentials, Principal
from secure_server.auth.matchers import Prefix
from secure_server.authz import Policy
from secure_server.guard.call import Call
from secure_server.guard.refusal import Answer
from secure_server.guard.streams import watch as module
from support.door import Door, open_door, wait_until

OPEN = '{"name": "open", "allow_rules": [{"name": "all"}]}'
NO_CALL = '{"name": "none", "allow_rules": [{"name": "none", "request": {"paths": ["/"]}}]}'


class Noted:
    """A stream."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.answers: list[Answer] = []
        self.cuts = 0
        self._is_broken = is_broken

    def end(self, answer: Answer) -> None:
        self.answers.append(answer)
        if self._is_broken:
            raise ValueError("it cannot be ended")

    def cut(self) -> None:
        self.cuts += 1


class Asked:
    """Knows those who say ``opaque-…``, by ``principal``, while it is not down."""

    name = "asked"
    matchers = (Prefix("opaque-"),)

    def __init__(self) -> None:
        self.count = 0
        self.is_down = False
        self.principal: dict[str, Any] = {}

    def authenticate(self, credentials: Credentials | None, _peer: object) -> Principal:
        assert credentials is not None
        self.count += 1
        if self.is_down:
            raise AuthenticatorUnavailable("network", "the issuer is down")
        return Principal(credentials.value, "https://opaque", self.name, **self.principal)


class Watching:
    def __init__(self, door: Door, asked: Asked, clock: list[float]) -> None:
        self.door = door
        self.asked = asked
        self.clock = clock
        self.rounds = 0

    def watch(self, stream: Noted, **principal: Any) -> None:
        """Let a stream in, and return when it was looked at for the first time."""
        self.asked.principal = principal
        transport = {
            "transport_security_type": [b"ssl"],
            "ssl_tls_version": [b"TLSv1.3"],
            "x509_pem_cert": [self.door.client.certificate_pem],
        }
        metadata = (("user-agent", "a test"), ("authorization", "Bearer opaque-one"))
        call = Call("/probe.Probe/stream_stream", metadata, transport)
        self.door.guard.watch.add(stream, self.door.core.admit(call), call)
        self.look()

    def look(self) -> None:
        """Return when all streams were looked at twice, and no authenticator is being asked."""
        before = self.rounds
        wait_until(lambda: self.rounds >= before + 3)
        entries = self.door.guard.watch._open
        wait_until(lambda: all(entry.asked_at is None for entry in entries.copy().values()))


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    asked = Asked()
    clock = [0.0]
    with open_door(tmp_path, policy=OPEN, before=(asked,), clock=lambda: clock[0]) as door:
        clock[0] = door.client.certificate.not_valid_before_utc.timestamp() + 3600
        watching = Watching(door, asked, clock)
        look = door.guard.watch._look_at_all

        def count(notices: int) -> None:
            look(notices)
            watching.rounds += 1

        monkeypatch.setattr(door.guard.watch, "_look_at_all", count)
        yield watching


def test_it_is_ended_once_and_cut_once_where_that_is_not_enough(watching: Watching) -> None:
    stuck, quick, broken = Noted(), Noted(), Noted(is_broken=True)
    for stream in (broken, stuck, quick):
        watching.watch(stream)
    watching.door.policy.change(Policy.parse(NO_CALL))
    wait_until(lambda: quick.answers != [] and stuck.answers != [])
    watching.door.guard.watch.remove(quick)
    wait_until(lambda: stuck.cuts > 0)
    watching.look()
    watching.door.policy.change(Policy.parse(NO_CALL))
    watching.look()
    for stream in (stuck, quick, broken):
        assert stream.answers == [Answer.POLICY_CHANGED]
    assert (stuck.cuts, quick.cuts, broken.cuts) == (1, 0, 1)
    assert len(watching.door.guard.watch) == 0


def test_one_that_may_go_on_is_not_looked_at_without_a_reason(watching: Watching) -> None:
    stream = Noted()
    watching.watch(stream)
    asked = watching.asked.count
    decided: list[object] = []
    recheck = watching.door.core.try_recheck_cached

    def note(call: Call) -> Any:
        decided.append(call)
        return recheck(call)

    watching.door.core.try_recheck_cached = note  # type: ignore[method-assign]
    watching.look()
    watching.look()
    assert decided == []
    for number in range(1, 4):
        watching.door.guard.watch.notice()
        watching.look()
        assert len(decided) == number
    assert watching.asked.count == asked


def test_its_issuer_is_asked_again_at_its_time_and_then_at_the_next(watching: Watching) -> None:
    stream = Noted()
    start = watching.clock[0]
    watching.watch(stream, recheck_at=start + 60)
    assert watching.asked.count == 1
    watching.clock[0] = start + 59.9
    watching.look()
    assert watching.asked.count == 1
    watching.asked.principal = {"recheck_at": start + 120}
    watching.clock[0] = start + 60
    wait_until(lambda: watching.asked.count == 2)
    watching.look()
    watching.clock[0] = start + 119.9
    watching.look()
    assert watching.asked.count == 2
    watching.clock[0] = start + 120
    wait_until(lambda: watching.asked.count == 3)
    assert stream.answers == []


def test_one_whose_time_has_come_and_that_may_go_on_is_asked_about_once_a_second(
    watching: Watching,
) -> None:
    """Within the leeway for clocks, say."""
    stream = Noted()
    start = watching.clock[0]
    watching.watch(stream, recheck_at=start + 60)
    for count, moment in ((2, 60), (2, 60.9), (3, 61), (3, 61.9), (4, 62)):
        watching.clock[0] = start + moment
        wait_until(lambda count=count: watching.asked.count == count)
        watching.look()
        assert watching.asked.count == count
    assert stream.answers == []


def test_an_issuer_that_is_down_is_asked_once_a_second_until_it_has_come_back(
    watching: Watching,
) -> None:
    stream = Noted()
    start = watching.clock[0]
    watching.watch(stream, recheck_at=start + 60, expires_at=start + 90)
    watching.asked.is_down = True
    for number, moment in enumerate((60, 61, 62), start=2):
        watching.clock[0] = start + moment
        wait_until(lambda number=number: watching.asked.count == number)
        watching.look()
        assert watching.asked.count == number, "it is asked again and again"
    assert stream.answers == []
    watching.asked.is_down = False
    watching.asked.principal = {"expires_at": start + 3600}
    watching.clock[0] = start + 63
    wait_until(lambda: watching.asked.count == 5)
    watching.look()
    # What counts from now on is the new answer.
    watching.clock[0] = start + 91
    watching.look()
    watching.asked.is_down = True
    watching.door.guard.core._recognition._epoch.advance()
    wait_until(lambda: watching.asked.count == 6)
    watching.look()
    assert stream.answers == []


def test_its_certificate_ends(watching: Watching) -> None:
    stream = Noted()
    watching.watch(stream)
    end = watching.door.client.certificate.not_valid_after_utc.timestamp()
    watching.clock[0] = end - 1
    watching.look()
    assert stream.answers == []
    watching.clock[0] = end + 1
    wait_until(lambda: stream.answers == [Answer.SESSION_ENDED])
