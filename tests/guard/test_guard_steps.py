"""The guard's steps one by one: what is remembered, for whom, and until when.

The calls are described, not made: what changes between two of them would be a race over a wire.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from secure_server.auth import AuthenticationError, Credentials, Principal
from secure_server.auth.matchers import BareCertificate, Prefix
from secure_server.authz import Policy
from secure_server.guard import authorization, recognition
from secure_server.guard.call import Call
from secure_server.guard.caller import Caller
from secure_server.guard.refusal import Answer, Refusal, RefusalReason
from secure_tls.authority import Issued
from secure_tls.trust import Trust
from support.door import AUDITED, Door, open_door

NOW = 2.0**31
METHOD = "/probe.Probe/unary_unary"
OPEN = '{"name": "open", "allow_rules": [{"name": "all"}]}'


class Asked:
    """Knows those who say ``opaque-…``, and counts how often it was asked."""

    name = "asked"
    matchers: tuple[Any, ...] = (Prefix("opaque-"),)

    def __init__(self, **principal: Any) -> None:
        self.count = 0
        self.principal = principal
        self.meanwhile: Callable[[], object] = lambda: None

    def authenticate(self, credentials: Credentials | None, _peer: object) -> Principal:
        self.count += 1
        name = "certificate" if credentials is None else credentials.value
        found = Principal(name, "https://opaque", self.name, token_id=name, **self.principal)
        self.meanwhile()
        return found


class Certified(Asked):
    """Knows the bare certificate too."""

    matchers = (Prefix("opaque-"), BareCertificate())


class Feed:
    """Revocations that a test makes."""

    def __init__(self) -> None:
        self.is_current = True
        self.generation = 0
        self.tokens: set[str] = set()
        self.subscribers: list[Callable[[], None]] = []

    def is_revoked(self, principal: Principal) -> bool:
        return principal.token_id in self.tokens

    def revoke(self, token_id: str) -> None:
        self.tokens.add(token_id)
        self.generation += 1

    def subscribe(self, told: Callable[[], None]) -> Callable[[], None]:
        self.subscribers.append(told)
        return lambda: self.subscribers.remove(told)


class Steps:
    """A guard, and calls by described metadata over its own client certificate."""

    def __init__(self, door: Door, asked: Asked, feed: Feed, clock: list[float]) -> None:
        self.door = door
        self.core = door.core
        self.asked = asked
        self.feed = feed
        self.clock = clock

    def call(
        self,
        token: str | None = "opaque-one",
        *metadata: tuple[str, Any],
        client: Issued | None = None,
        method: str = METHOD,
        method_exists: bool = True,
    ) -> Call:
        said = () if token is None else (("authorization", f"Bearer {token}"),)
        transport = {
            "transport_security_type": [b"ssl"],
            "ssl_tls_version": [b"TLSv1.3"],
            "x509_pem_cert": [(client or self.door.client).certificate_pem],
        }
        sent = (("user-agent", "a test"), *said, *metadata)
        return Call(method, sent, transport, method_exists)

    def code(self, step: Callable[[Call], Any], call: Call | None = None) -> str:
        """Return why a step refuses the call; empty where it does not."""
        try:
            assert step(call or self.call()) is not None, "it has to be asked"
        except Refusal as refusal:
            return refusal.code
        return ""

    def code_of_check(self, caller: Caller, call: Call | None = None) -> str:
        try:
            self.core.recheck_as(caller, call or self.call())
        except Refusal as refusal:
            return refusal.code
        return ""


@contextmanager
def steps(tmp_path: Path, asked: Asked | None = None, policy: str = OPEN) -> Iterator[Steps]:
    asked, feed, clock = asked or Asked(), Feed(), [NOW]
    with open_door(
        tmp_path, policy=policy, before=(asked,), revocations=feed, clock=lambda: clock[0]
    ) as door:
        # The certificates of the test are of today, and NOW is another time.
        client = door.authority.issue_client("admin")
        clock[0] = client.certificate.not_valid_before_utc.timestamp() + 3600
        yield Steps(door, asked, feed, clock)


def test_a_caller_is_asked_about_once_and_by_each_certificate_anew(tmp_path: Path) -> None:
    with steps(tmp_path) as at:
        other = at.call(client=at.door.authority.issue_client("other"))
        for call, count in ((at.call(), 1), (at.call(), 1), (other, 2), (other, 2), (at.call(), 2)):
            caller = at.core.admit(call)
            assert at.asked.count == count
        assert caller.peer is not None
        assert caller.peer.spiffe_id == "spiffe://example.org/client/admin"


@pytest.mark.parametrize(("expires_at", "recheck_at"), [(60, 90), (90, 60), (60, None), (None, 60)])
def test_an_answer_is_remembered_until_the_first_of_its_two_times(
    tmp_path: Path, expires_at: float | None, recheck_at: float | None
) -> None:
    with steps(tmp_path) as at:
        now = at.clock[0]
        times = {"expires_at": expires_at, "recheck_at": recheck_at}
        at.asked.principal = {name: now + time for name, time in times.items() if time is not None}
        for moment, count in ((0, 1), (59.9, 1), (60, 2)):
            at.clock[0] = now + moment
            at.core.admit(at.call())
            assert at.asked.count == count, moment


def test_an_answer_is_not_filed_under_a_state_that_came_after_it(tmp_path: Path) -> None:
    """What is forgotten while an authenticator is asked concerns its answer too."""
    with steps(tmp_path) as at:
        at.asked.meanwhile = at.door.guard.core._recognition._epoch.advance
        at.core.admit(at.call())
        at.asked.meanwhile = lambda: None
        assert at.core.try_admit_cached(at.call()) is None
        at.core.admit(at.call())
        assert at.core.try_admit_cached(at.call()) is not None
        at.door.guard.core._recognition._epoch.advance()
        assert at.core.try_admit_cached(at.call()) is None


def test_what_is_revoked_is_refused_cold_and_each_time_when_it_was_known(tmp_path: Path) -> None:
    with steps(tmp_path) as at:
        at.feed.revoke("opaque-cold")
        cold = at.call("opaque-cold")
        assert [at.code(at.core.admit, cold) for _ in range(2)] == ["revoked"] * 2
        assert at.code(at.core.admit) == ""
        at.feed.revoke("opaque-one")
        assert [at.code(at.core.admit) for _ in range(3)] == ["revoked"] * 3
        assert at.asked.count == 3, "it needs no authenticator"


def test_what_is_revoked_while_its_issuer_is_asked_is_refused_from_then_on(tmp_path: Path) -> None:
    class Late(Feed):
        """Answers as of before, once."""

        def is_revoked(self, principal: Principal) -> bool:
            before = super().is_revoked(principal)
            if self.generation == 0:
                self.revoke(principal.token_id)
            return before

    with steps(tmp_path) as at:
        at.feed.__class__ = Late
        assert at.code(at.core.admit) == ""
        assert at.code(at.core.admit) == "revoked"


def test_without_a_current_feed_only_the_anonymous_go_on(tmp_path: Path) -> None:
    with steps(tmp_path) as at:
        anonymous = at.call(None)
        callers = [(call, at.core.admit(call)) for call in (at.call(), anonymous)]
        at.feed.is_current = False
        for step in (at.core.admit, at.core.try_admit_cached, at.core.recheck):
            assert at.code(step) == "revocations_stale"
            assert at.code(step, at.call("opaque-cold")) == "revocations_stale"
            assert at.code(step, anonymous) == ""
        found = [at.code_of_check(caller, call) for call, caller in callers]
        assert found == ["revocations_stale", ""]
        at.feed.is_current = True
        assert at.code(at.core.admit) == ""
        assert at.code_of_check(callers[0][1]) == ""


def test_a_check_without_an_authenticator_leaves_out_nothing_else(tmp_path: Path) -> None:
    """Certificate, time, revocations and policy: each ends a stream by itself."""
    with steps(tmp_path) as at:
        now = at.clock[0]
        at.asked.principal = {"expires_at": now + 60}
        caller = at.core.admit(at.call())
        assert at.code_of_check(caller) == ""
        at.clock[0] = now + 59.9
        assert at.code_of_check(caller) == ""
        at.clock[0] = now + 60
        assert at.code_of_check(caller) == "expired"
        at.clock[0] = now
        good = at.door.policy.value
        at.door.policy.change(Policy.parse(NOTHING))
        assert at.code_of_check(caller) == "policy"
        at.door.policy.change(good)
        assert at.code_of_check(caller) == ""
        trusted = at.door.tls.value
        at.door.tls.change(trusted.__class__(trusted.files, Trust(()), trusted.handshake_bundle))
        assert at.code_of_check(caller) == "certificate_authority"
        at.door.tls.change(trusted)
        at.feed.revoke("opaque-one")
        assert at.code_of_check(caller) == "revoked"
        assert at.asked.count == 1


NOTHING = '{"name": "none", "allow_rules": [{"name": "none", "request": {"paths": ["/none"]}}]}'


def test_an_event_loop_asks_no_authenticator_about_a_bare_certificate(tmp_path: Path) -> None:
    with steps(tmp_path, Certified()) as at:
        at.core.admit(at.call())  # the certificate is known
        assert at.asked.count == 1
        assert at.core.try_admit_cached(at.call(None)) is None
        assert at.asked.count == 1
        assert at.core.admit(at.call(None)).principal.subject == "certificate"
        assert at.core.try_admit_cached(at.call(None)) is not None


def test_callers_are_forgotten_where_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognition, "_MOST_CALLERS", 3)
    with steps(tmp_path) as at:
        for number in range(4):
            at.core.admit(at.call(f"opaque-{number}"))
        known = [at.core.try_admit_cached(at.call(f"opaque-{number}")) for number in range(4)]
        assert [one is not None for one in known] == [False, True, True, True]


class Deciding:
    """A policy that counts how often it is asked, and has something happen meanwhile."""

    name = "deciding"

    def __init__(self, text: str) -> None:
        self._policy = Policy.parse(text)
        self.count = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def reads_headers(self, method: str) -> bool:
        return self._policy.reads_headers(method)

    def names(self, method: str) -> bool:
        return self._policy.names(method)

    def decide(self, *arguments: Any, **named: Any) -> Any:
        self.count += 1
        decision = self._policy.decide(*arguments, **named)
        self.meanwhile()
        return decision


def test_a_decision_is_remembered_for_its_method_alone_and_no_invented_one(tmp_path: Path) -> None:
    with steps(tmp_path) as at:
        policy = Deciding(OPEN)
        at.door.policy.change(policy)  # type: ignore[arg-type]
        for _ in range(3):
            at.core.admit(at.call())
        assert policy.count == 1
        at.core.admit(at.call(method="/probe.Probe/other"))
        assert policy.count == 2
        invented = at.call(method="/in.Vented/One", method_exists=False)
        for _ in range(3):
            at.core.admit(invented)
        assert policy.count == 5


def test_a_decision_is_never_filed_under_another_policy(tmp_path: Path) -> None:
    """Made by the one before, for a call that was on its way when the new one came."""
    with steps(tmp_path) as at:
        at.core.admit(at.call())
        old, new = Deciding(OPEN), Deciding(NOTHING)

        def replace() -> None:
            at.door.policy.change(new)  # type: ignore[arg-type]
            # Another call of the same caller is decided about by the new one.
            assert at.code(at.core.admit, at.call(method="/probe.Probe/other")) == "policy"

        old.meanwhile = replace
        at.door.policy.change(old)  # type: ignore[arg-type]
        assert at.code(at.core.admit) == "", "this one was decided about before"
        assert at.code(at.core.admit) == "policy"


def test_a_method_that_no_rule_is_about_is_warned_of_once_a_policy_and_no_invented_one(
    tmp_path: Path, log: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or callers could fill the log, and the memory for what was said."""
    monkeypatch.setattr(authorization, "_MOST_METHODS", 2)
    with steps(tmp_path, policy=NOTHING) as at:
        invented = at.call(method="/in.Vented/One", method_exists=False)
        for _ in range(2):
            assert at.code(at.core.admit, invented) == "policy"
            assert at.code(at.core.admit, at.call(None)) == "anonymous_denied"
        assert [line["method"] for line in log] == [METHOD]
        for number in range(3):
            at.code(at.core.admit, at.call(method=f"/probe.Probe/{number}"))
        assert [line["method"] for line in log] == [METHOD, "/probe.Probe/0"]
        at.door.policy.change(Policy.parse(NOTHING))
        at.code(at.core.admit)
        assert [line["method"] for line in log][2:] == [METHOD]
        # One that a rule denies is meant so.
        at.door.policy.change(
            Policy.parse(
                '{"name": "deny", "deny_rules": [{"name": "all"}], "allow_rules": [{"name": "a"}]}'
            )
        )
        assert at.code(at.core.admit) == "policy"
        assert len(log) == 3


HEADERS = """{"name": "headers",
  "deny_rules": [{"name": "both",
    "request": {"headers": [{"key": "x-of", "values": ["a,b"]}]}}],
  "allow_rules": [{"name": "all"}]}"""


def test_a_rule_about_headers_is_asked_at_each_call_and_sees_repeated_ones_as_one(
    tmp_path: Path,
) -> None:
    with steps(tmp_path, policy=HEADERS) as at:
        for sent, code in (
            ((("x-of", "a"),), ""),
            ((("x-of", "a"), ("x-of", "b")), "policy"),
            ((("x-of", "b"), ("x-of", "a")), ""),
            ((("x-of", "a,b"),), "policy"),
            ((), ""),
        ):
            for step in (at.core.admit, at.core.try_admit_cached, at.core.recheck):
                assert at.code(step, at.call("opaque-one", *sent)) == code, sent


def test_a_refusal_says_to_audit_who_it_was_when_and_by_which_rule(tmp_path: Path) -> None:
    deny = """{"name": "strict", "deny_rules": [{"name": "everything"}],
      "allow_rules": [{"name": "all"}]}"""
    with steps(tmp_path, policy=deny) as at:
        assert at.code(at.core.admit) == "policy"
        (event,) = at.door.events
        assert event.peer is not None
        assert event.peer.spiffe_id == "spiffe://example.org/client/admin"
        assert (event.principal.subject, event.policy, event.rule, event.time) == (
            "opaque-one",
            "strict",
            "everything",
            at.clock[0],
        )


def test_a_call_that_is_allowed_is_an_event_once_and_a_recheck_is_none(tmp_path: Path) -> None:
    with steps(tmp_path, policy=AUDITED) as at:
        at.core.admit(at.call())
        (event,) = at.door.events
        assert (event.allowed, event.rule, event.time) == (True, "all", at.clock[0])
        assert event.peer is not None
        assert event.principal.subject == "opaque-one"
        for step in (at.core.recheck, at.core.try_recheck_cached):
            assert at.code(step) == ""
        assert at.code_of_check(at.core.recheck(at.call())) == ""
        assert len(at.door.events) == 1
        assert at.code(at.core.try_admit_cached) == ""
        assert len(at.door.events) == 2


def test_a_call_that_is_allowed_is_no_event_where_the_policy_wants_none(tmp_path: Path) -> None:
    with steps(tmp_path) as at:
        assert at.code(at.core.admit) == ""
        assert at.code(at.core.try_admit_cached) == ""
        assert at.door.events == []


def test_an_audit_callback_that_raises_changes_no_decision_and_is_logged(
    tmp_path: Path, log: list[dict[str, object]]
) -> None:
    with steps(tmp_path, policy=AUDITED) as at:

        def fail(_event: object) -> None:
            raise OSError("the disk is full")

        at.core._audit = fail
        assert at.code(at.core.admit) == ""
        at.feed.revoke("opaque-one")
        assert at.code(at.core.admit) == "revoked"
        assert [line["event"] for line in log] == ["an audit logger failed"] * 2


def test_what_a_plug_in_raises_is_audited_with_the_peer(tmp_path: Path) -> None:
    with steps(tmp_path) as at:

        def fail() -> None:
            raise ValueError("hunter2")

        at.asked.meanwhile = fail
        assert at.code(at.core.admit) == "guard_failed"
        (event,) = at.door.events
        assert event.peer is not None
        assert event.peer.spiffe_id == "spiffe://example.org/client/admin"
        at.door.events.clear()
        at.door.tls.change(at.door.tls.value.__class__(at.door.tls.value.files, Trust(()), b""))
        assert at.code(at.core.admit) == "certificate_authority"
        (event,) = at.door.events
        assert event.peer is None, "no peer was verified"
        assert event.unverified == {"spiffe_id": "spiffe://example.org/client/admin"}


def test_what_refused_credentials_claim_is_audited_as_unverified(tmp_path: Path) -> None:
    with steps(tmp_path) as at:

        def refuse() -> None:
            raise AuthenticationError("forged", "It is forged.", claims={"sub": "admin"})

        at.asked.meanwhile = refuse
        assert at.code(at.core.admit) == "forged"
        (event,) = at.door.events
        assert (event.unverified, event.principal.subject) == ({"sub": "admin"}, "")


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((("user-agent", "a"), ("authorization", b"bytes")), "authorization"),
        ((("user-agent", "a"), *[("authorization", "Bearer opaque-one")] * 2), "authorization"),
        ((("user-agent", "a"), ("x", "y" * (16 * 1024 - 76))), ""),
        ((("user-agent", "a"), ("x", "y" * (16 * 1024 - 75))), "metadata_size"),
        ((("user-agent", "a"), *[("x", "")] * 500), "metadata_size"),
        ((("x", "y"),), "no_metadata"),
    ],
)
def test_metadata_that_no_grpc_would_hand_over_is_refused_all_the_same(
    tmp_path: Path, metadata: tuple[Any, ...], code: str
) -> None:
    with steps(tmp_path) as at:
        call = at.call(None)._replace(metadata=metadata)
        assert at.code(at.core.admit, call) == code


@pytest.mark.parametrize(
    ("transport", "code"),
    [
        ({"transport_security_type": [b"insecure"]}, "plaintext"),
        ({"transport_security_type": [b"local"]}, "plaintext"),
        ({"transport_security_type": [b"tls"]}, ""),
        ({"ssl_tls_version": [b"TLSv1.2"]}, "tls_version"),
        (None, "plaintext"),
    ],
)
def test_a_transport_that_no_server_of_ours_offers_is_refused_all_the_same(
    tmp_path: Path, transport: dict[str, Any] | None, code: str
) -> None:
    with steps(tmp_path) as at:
        call = at.call(None)
        described = {} if transport is None else {**call.transport, **transport}
        assert at.code(at.core.admit, call._replace(transport=described)) == code


def test_the_least_version_of_tls_is_that_of_the_present_set(tmp_path: Path) -> None:
    with steps(tmp_path) as at:
        call = at.call(None)
        call = call._replace(transport={**call.transport, "ssl_tls_version": [b"TLSv1.2"]})
        for version, code in (("1.2", ""), ("1.3", "tls_version")):
            at.door.tls.change(dataclasses.replace(at.door.tls.value, minimum_version=version))
            assert at.code(at.core.admit, call) == code


def test_callers_are_told_these_answers_and_open_streams_these() -> None:
    """A reason that says nothing about the caller ends no stream."""
    refused, ended = Answer.CREDENTIALS_REFUSED, Answer.SESSION_ENDED
    assert {reason.name: (reason.answer, reason.ending) for reason in RefusalReason} == {
        "AUTHORIZATION": (refused, ended),
        "NO_METADATA": (refused, ended),
        "METADATA_SIZE": (Answer.TOO_LARGE, None),
        "PLAINTEXT": (refused, ended),
        "TLS_VERSION": (refused, ended),
        "CERTIFICATE": (refused, ended),
        "CREDENTIALS": (refused, ended),
        "EXPIRED": (refused, ended),
        "REVOKED": (refused, ended),
        "ANONYMOUS_DENIED": (refused, Answer.POLICY_CHANGED),
        "POLICY": (Answer.NOT_ALLOWED, Answer.POLICY_CHANGED),
        "SILENT": (Answer.OVERLOADED, None),
        "UNVERIFIABLE": (Answer.UNAVAILABLE, None),
        "REVOCATIONS_STALE": (Answer.UNAVAILABLE, Answer.UNAVAILABLE),
        "GUARD_FAILED": (Answer.FAILED, None),
    }


def test_callers_are_told_no_other_reasons_than_these() -> None:
    assert {answer.reason for answer in Answer if answer.reason} == {
        "CREDENTIALS_REFUSED",
        "NOT_ALLOWED",
        "SESSION_ENDED",
        "POLICY_CHANGED",
        "OVERLOADED",
        "SERVER_ROTATING",
    }
