"""Rows of the table over real connections, and changes while they are open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from paths_pki import Crl, Pki, authority, client
from paths_row import Row
from paths_server import BOTH_STACKS, Server, serving, write
from paths_table import ROWS, ZERO

from support.door import ask, wait_until
from support.open_streams import STREAMS, Open, hold

OK, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
both_stacks = pytest.mark.parametrize("style", BOTH_STACKS)


@both_stacks
@pytest.mark.parametrize("row", [row for row in ROWS if row.wire], ids=str)
def test_the_client_is_served_or_refused_as_the_table_says(
    row: Row, style: str, tmp_path: Path
) -> None:
    """UNAUTHENTICATED with the code in audit, or no connection where the row says so."""
    with serving(row, row.build(ZERO), tmp_path, style, row.moment(ZERO)) as server:
        answer = ask(server.channel(row.leaf, row.sent), "unary_unary")
    codes = [event.code for event in server.audit if not event.allowed]
    if isinstance(row.wire, str):
        assert (answer.code, codes) == (grpc.StatusCode.UNAVAILABLE, []), answer.details
    elif row.code:
        assert (answer.code, codes) == (UNAUTHENTICATED, [row.code])
    else:
        assert (answer.code, codes) == (OK, [])


def _code(channel: grpc.Channel) -> grpc.StatusCode:
    return ask(channel, "unary_unary").code


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:
        yield lambda row, pki, style: stack.enter_context(
            serving(row, pki, tmp_path, style, time.time())
        )


_OURS = (Crl(by="root"), Crl(by="mid"))
_THEIRS = (Crl(by="acme"), Crl(by="acme_mid"))
_PARTNERS = Row(
    "partners", bundles={"acme.example": ("acme",)}, lists=(*_OURS, *_THEIRS), refuse_stale=True
)


@both_stacks
def test_M3_an_intermediate_that_is_revoked_ends_open_connections_and_streams(
    style: str, server: Callable[..., Server]
) -> None:
    """Its leaves' next calls are refused and their streams end within a second; others go on."""
    pki = Pki({"other": authority("root"), "fine": client("other")}, ZERO)
    running = server(Row("revoked", lists=(Crl(by="root"),)), pki, style)
    with ExitStack() as stack:
        gone, fine = running.channel("leaf", ["mid"]), running.channel("fine", ["other"])
        assert (_code(gone), _code(fine)) == (OK, OK)
        stack.callback(hold(running))
        ending = [Open(gone, kind, stack, None) for kind in STREAMS]
        staying = [Open(fine, kind, stack, None) for kind in STREAMS]
        wait_until(lambda: len(running.probe.callers) == 2 + len(ending) + len(staying))
        revoked = time.monotonic()
        write(running.crl / "0.crl", pki.crl(Crl(by="root", revokes=("mid",), number=2)))
        for stream in ending:
            stream.assert_ended("SESSION_ENDED", since=revoked)
        running.probe.reset()
        assert (_code(gone), _code(fine)) == (UNAUTHENTICATED, OK)
        assert all(stream.is_open for stream in staying)
    assert {event.code for event in running.audit if not event.allowed} == {"issuer_revoked"}


@both_stacks
@pytest.mark.parametrize("ends", ["intermediate", "list"])
def test_M4_a_stream_ends_with_the_path_of_its_caller(
    style: str, ends: str, server: Callable[..., Server]
) -> None:
    """Before the leaf does, by the clock only: no file is written."""
    if ends == "intermediate":
        row = Row("ends")
        pki = Pki({"mid": authority("root", until=3600)}, ZERO)
    else:
        row = Row("ends", lists=(Crl(by="root", until=3600), Crl(by="mid")), refuse_stale=True)
        pki = Pki({}, ZERO)
    running = server(row, pki, style)
    with ExitStack() as stack:
        channel = running.channel("leaf", ["mid"])
        stack.callback(hold(running))
        streams = [Open(channel, kind, stack, None) for kind in STREAMS]
        watched = running.guard.watch._open
        # Each was judged once: later refusals must come by the clock.
        wait_until(lambda: len(watched) == len(streams))
        wait_until(lambda: all(entry.notices is not None for entry in watched.copy().values()))
        ended = time.monotonic()
        running.now = ZERO + 3601
        for stream in streams:
            stream.assert_ended("SESSION_ENDED", since=ended)
    code = "issuer_dates" if ends == "intermediate" else "crl_stale"
    assert {event.code for event in running.audit if not event.allowed} == {code}


@both_stacks
def test_M5_a_renewed_intermediate_is_served_without_a_restart(
    style: str, server: Callable[..., Server]
) -> None:
    """The same leaf comes with the old intermediate until that is over, then with the new one."""
    old = authority("root", until=3600)
    new = authority("root", key="mid", subject="mid")
    pki = Pki({"mid": old, "new": new}, ZERO)
    running = server(Row("renewed"), pki, style)
    before = running.channel("leaf", ["mid"])
    assert _code(before) is OK
    running.now = ZERO + 3601
    assert _code(before) is UNAUTHENTICATED
    after = running.channel("leaf", ["new"])
    both = running.channel("leaf", ["mid", "new"])
    assert (_code(after), _code(both), _code(before)) == (OK, OK, UNAUTHENTICATED)
    assert [event.code for event in running.audit if not event.allowed] == ["issuer_dates"] * 2


@both_stacks
@pytest.mark.parametrize(
    ("becomes", "code"),
    [("stale", "crl_stale"), ("malformed", ""), ("removed", "crl_missing")],
)
def test_M6_what_becomes_of_a_partners_list_concerns_that_partners_clients_alone(
    style: str, becomes: str, code: str, server: Callable[..., Server]
) -> None:
    """A list that is malformed leaves the last good one in place (T16), until that is stale."""
    pki = _PARTNERS.build(ZERO)
    running = server(_PARTNERS, pki, style)
    ours, theirs = running.channel("leaf", ["mid"]), running.channel("acme_leaf", ["acme_mid"])
    assert (_code(ours), _code(theirs)) == (OK, OK)
    file = running.crl / "2.crl"
    if becomes == "stale":
        write(file, pki.crl(Crl(by="acme", until=-60)))
    elif becomes == "malformed":
        write(file, pki.crl(Crl(by="acme", truncated=True)))
    else:
        file.unlink()
    if code:
        wait_until(lambda: _code(theirs) is UNAUTHENTICATED)
        assert running.audit[-1].code == code
    # Whatever their file holds, ours is still read: it revokes within the usual time.
    assert _code(ours) is OK
    write(running.crl / "1.crl", pki.crl(Crl(by="mid", revokes=("leaf",), number=2)))
    wait_until(lambda: _code(ours) is UNAUTHENTICATED)
    assert running.audit[-1].code == "certificate_revoked"
    assert _code(theirs) is (UNAUTHENTICATED if code else OK)
    write(file, pki.crl(Crl(by="acme", number=3)))
    wait_until(lambda: _code(theirs) is OK)
