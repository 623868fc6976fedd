"""Cached verdicts on client certificates: by leaf and chain, while they hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from paths_pki import BASE, DAY, Pki, authority

from secure_server.guard import Peers, TLSSet
from secure_server.guard import peers as module
from secure_server.guard.call import Call
from secure_server.guard.refusal import Refusal
from secure_tls.trust import Trust
from support.door import Changing, open_door

_OPEN = '{"name": "open", "allow_rules": [{"name": "all"}]}'

ZERO = int(time.time())
PKI = Pki(
    {
        **BASE,
        # The same authority, certified twice.
        "short": authority("root", subject="mid", key="mid", until=10 * DAY),
        "long": authority("root", subject="mid", key="mid", until=40 * DAY),
        "later": authority("root", subject="mid", key="mid", since=20 * DAY),
    },
    ZERO,
)


def transport(*sent: str) -> dict[str, Sequence[bytes]]:
    return {
        "transport_security_type": [b"ssl"],
        "ssl_tls_version": [b"TLSv1.3"],
        "x509_pem_cert": [PKI.pem("leaf")],
        "x509_pem_cert_chain": [PKI.pem(*sent)] if sent else [],
    }


def trusting(name: str) -> TLSSet:
    # Peers are judged by `trust` only.
    return TLSSet(files=None, trust=Trust(PKI.certificates((name,))), handshake_bundle=b"")  # type: ignore[arg-type]


@pytest.fixture
def tls() -> Changing[TLSSet]:
    return Changing(trusting("root"))


@pytest.fixture
def peers(tls: Changing[TLSSet]) -> Peers:
    return Peers(tls)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which a certificate was judged."""
    moments: list[float] = []
    judge = module.judge_client

    def counting(leaf: bytes, sent: bytes, trust: Trust, now: float) -> object:
        moments.append(now)
        return judge(leaf, sent, trust, now)

    monkeypatch.setattr(module, "judge_client", counting)
    return moments


def code_of(peers: Peers, sent: tuple[str, ...], now: float) -> str:
    try:
        assert peers.identify(transport(*sent), now) is not None
    except Refusal as refusal:
        return refusal.code
    return ""


def code_of_chain(peers: Peers, sent: bytes, now: float) -> str:
    try:
        peers.identify(transport() | {"x509_pem_cert_chain": [sent]}, now)
    except Refusal as refusal:
        return refusal.code
    return ""


def test_a_certificate_is_judged_once_and_known_then(peers: Peers, judged: list[float]) -> None:
    assert not peers.knows(transport("mid"), ZERO)
    assert judged == []
    assert [code_of(peers, ("mid",), ZERO + second) for second in range(3)] == ["", "", ""]
    assert judged == [ZERO]
    assert peers.knows(transport("mid"), ZERO + 3)


def test_a_refusal_is_remembered_too(peers: Peers, judged: list[float]) -> None:
    assert [code_of(peers, (), ZERO + n) for n in range(3)] == ["certificate_authority"] * 3
    assert judged == [ZERO]


def test_M5_another_chain_of_the_same_leaf_is_judged_by_itself(peers: Peers) -> None:
    assert code_of(peers, (), ZERO) == "certificate_authority"
    assert code_of(peers, ("mid",), ZERO) == ""
    assert code_of(peers, ("short",), ZERO + 11 * DAY) == "issuer_dates"
    assert code_of(peers, ("long",), ZERO + 11 * DAY) == ""


def test_M5_another_path_is_tried_when_one_has_ended(peers: Peers, judged: list[float]) -> None:
    both = ("short", "long")
    for day in range(0, 50, 5):
        expected = "" if day <= 40 else "issuer_dates"
        assert code_of(peers, both, ZERO + day * DAY) == expected, day
    # At first, after the found path had expired, and after the last one had.
    days = [round((moment - ZERO) / DAY) for moment in judged]
    assert (days[0], days[-1], len(days) <= 3) == (0, 45, True)


def test_a_refusal_ends_when_a_certificate_becomes_valid(peers: Peers, judged: list[float]) -> None:
    start = ZERO + 20 * DAY
    assert code_of(peers, ("later",), ZERO) == "issuer_dates"
    assert code_of(peers, ("later",), start - 0.001) == "issuer_dates"
    assert code_of(peers, ("later",), start) == ""
    assert len(judged) == 2


def test_after_a_clock_step_back_it_is_judged_again(peers: Peers) -> None:
    assert code_of(peers, ("mid",), ZERO) == ""
    assert code_of(peers, ("mid",), ZERO - 6 * DAY) == "certificate_dates"
    assert code_of(peers, ("mid",), ZERO) == ""


def test_new_trust_is_judged_again(peers: Peers, tls: Changing[TLSSet]) -> None:
    assert code_of(peers, ("mid",), ZERO) == ""
    tls.change(trusting("acme"))
    assert not peers.knows(transport("mid"), ZERO)
    assert code_of(peers, ("mid",), ZERO) == "certificate_authority"


def test_a_client_that_varies_its_chain_is_remembered_a_few_times_only(
    peers: Peers, judged: list[float]
) -> None:
    chains = [("mid", *("acme",) * number) for number in range(8)]
    varied = [PKI.pem(*chain) + b"\n" * number for chain in chains for number in range(3)]
    for sent in varied:
        assert peers.identify(transport() | {"x509_pem_cert_chain": [sent]}, ZERO) is not None
    assert len(judged) == 24
    known = [peers.knows(transport() | {"x509_pem_cert_chain": [sent]}, ZERO) for sent in varied]
    assert known == [False] * 8 + [True] * 16


def test_a_client_that_varies_its_chain_is_judged_so_often_a_minute(
    peers: Peers, judged: list[float]
) -> None:
    def code(number: int, now: float) -> str:
        return code_of_chain(peers, PKI.pem("mid") + b"\n" * number, now)

    assert {code(number, ZERO) for number in range(32)} == {""}
    assert {code(number, ZERO) for number in range(32, 40)} == {"path"}
    assert code(31, ZERO) == "", "one that is known is served all the same"
    assert len(judged) == 32
    assert code(40, ZERO + 60) == ""


def test_after_a_clock_step_back_chains_of_a_leaf_are_judged_all_the_same(peers: Peers) -> None:
    def code(number: int, now: float) -> str:
        return code_of_chain(peers, PKI.pem("mid") + b"\n" * number, now)

    assert {code(number, ZERO + 3600) for number in range(33)} == {"", "path"}
    assert code(40, ZERO) == ""


def test_what_is_judged_is_forgotten_where_there_are_too_many_leaves(
    tls: Changing[TLSSet], judged: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_PEERS", 2)
    peers = Peers(tls)
    leaves = [PKI.pem("leaf") + b"\n" * number for number in range(3)]
    described = [transport("mid") | {"x509_pem_cert": [leaf]} for leaf in leaves]
    for each in described:
        assert peers.identify(each, ZERO) is not None
    assert [peers.knows(each, ZERO) for each in described] == [False, True, True]
    assert len(judged) == 3


def test_what_has_ended_or_not_begun_is_not_known_any_more(
    peers: Peers, judged: list[float]
) -> None:
    """An event loop may not judge it again."""
    assert code_of(peers, ("short",), ZERO) == ""
    assert peers.knows(transport("short"), ZERO + 9 * DAY)
    assert not peers.knows(transport("short"), ZERO + 11 * DAY)
    assert not peers.knows(transport("short"), ZERO - 30 * DAY)
    assert len(judged) == 1


def test_a_peer_that_was_refused_is_none_that_is_known(peers: Peers, tls: Changing[TLSSet]) -> None:
    assert peers.known(transport("mid")) is None
    assert code_of(peers, ("mid",), ZERO) == ""
    assert peers.known(transport("mid")) is not None
    assert code_of(peers, ("short",), ZERO + 11 * DAY) == "issuer_dates"
    assert peers.known(transport("short")) is None
    assert peers.known({}) is None
    tls.change(trusting("acme"))
    assert peers.known(transport("mid")) is None


def test_a_chain_that_is_too_large_is_not_looked_at(peers: Peers, judged: list[float]) -> None:
    big = PKI.pem("mid") + b"#" * 32 * 1024
    with pytest.raises(Refusal) as refused:
        peers.identify(transport() | {"x509_pem_cert_chain": [big]}, ZERO)
    assert (refused.value.code, judged) == ("path", [])


def test_a_cold_certificate_is_not_judged_on_an_event_loop(
    tmp_path: Path, judged: list[float]
) -> None:
    """``try_admit_cached`` answers None for a cold certificate: it parses nothing."""
    with open_door(tmp_path, policy=_OPEN) as door:
        theirs = door.authority.issue_client("cold")
        facts = transport() | {"x509_pem_cert": [theirs.certificate_pem]}
        metadata = [("user-agent", "test")]
        call = Call("/probe.Probe/unary_unary", metadata, facts)
        assert door.core.try_admit_cached(call) is None
        assert judged == []
        door.core.admit(call)
        assert len(judged) == 1
        assert door.core.try_admit_cached(call) is not None
        assert len(judged) == 1
