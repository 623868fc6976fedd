"""The guard's feed of revocations, on both stacks: revocations by other processes, and outages.

The feed is the identity service's own, in a database; the revoker opens the database beside the
guard, as another replica does.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from secure_server.auth import Identity
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.auth.local_issuer import MAX_TOKEN_LIFETIME
from secure_server.store.database import Database
from secure_server.testing import Issuer
from secure_server.tokens.revocations import Revocations
from secure_server.tokens.session import Session
from secure_server.tokens.session_endings import SessionEndings
from secure_server.tokens.sessions import Sessions
from secure_server.users import Accounts, Passwords
from support.door import Door, ask, event_loop, open_door, wait_until
from support.forge import b64, parts
from support.open_streams import STREAMS, Open, hold
from support.probe import STYLES

UA, UNAVAILABLE = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE
ISSUER = "https://issuer"
CLIENT = "spiffe://example.org/client/gone"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the curve P-256."""

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@dataclass
class Feed:
    """The feed that the guard follows, and another replica that revokes."""

    revocations: Revocations
    database: Database
    sessions: Sessions
    endings: SessionEndings
    elsewhere: Revocations
    uid: str

    def session(self) -> Session:
        return self.sessions.open(self.uid, CLIENT)


@contextmanager
def feed(root: Path, **settings: Any) -> Iterator[Feed]:
    url = f"sqlite:///{root}/feed.db"
    with ExitStack() as stack:
        here, there = Database.open(url), Database.open(url)
        stack.callback(there.close)
        stack.callback(here.close)
        revocations = Revocations(here, issuer=ISSUER, clock=time.time, **settings)
        revocations.start()
        stack.callback(revocations.close)
        endings = SessionEndings(
            there,
            issuer=ISSUER,
            clock=time.time,
            access_token_lifetime=MAX_TOKEN_LIFETIME,
        )
        sessions = Sessions(
            there,
            endings,
            issuer=ISSUER,
            clock=time.time,
            idle_lifetime=3600.0,
            absolute_lifetime=3600.0,
        )
        passwords = Passwords()
        stack.callback(passwords.close)
        accounts = Accounts(there, passwords, clock=time.time, end_sessions=endings.end_all)
        elsewhere = Revocations(there, issuer=ISSUER, clock=time.time)
        yield Feed(revocations, here, sessions, endings, elsewhere, accounts.create("gone").uid)


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Unread:
    """An endless stream whose caller reads one message, and then nothing."""

    def __init__(self, door: Door, token: str, number: int) -> None:
        self.ended = threading.Event()
        self.ended_at = 0.0
        method = f"/probe.Probe/endless-{number}"
        door.probe.others[method] = door.probe.endless(self._note)
        metadata = (("authorization", f"Bearer {token}"),)
        self._call = door.channel().unary_stream(method)(b"", metadata=metadata, timeout=60)
        assert next(self._call) == b"more"

    def _note(self) -> None:
        self.ended_at = time.monotonic()
        self.ended.set()

    @property
    def is_open(self) -> bool:
        return not self.ended.is_set()

    def assert_ended(self, _reason: str, since: float) -> None:
        """Its handler has stopped: the status waits for the caller to read."""
        assert self.ended.wait(5)
        assert self.ended_at - since < 1.0


def test_G11_a_token_a_session_a_user_and_a_client_end_their_streams_of_every_kind_and_no_others(
    tmp_path: Path, style: str
) -> None:
    """Within a second of a revocation elsewhere, with handlers that hang and with peers who read
    nothing.
    """
    with (
        feed(tmp_path) as feeding,
        open_door(tmp_path, style=style, revocations=feeding.revocations) as door,
        ExitStack() as stack,
    ):
        stack.callback(hold(door))
        session_id = feeding.session().session_id
        claims: dict[str, dict[str, str]] = {
            "token": {"jti": "stolen"},
            "session": {"sid": session_id},
            "user": {"sub": "users/gone"},
            "client": {"client_id": CLIENT},
            "none": {},
        }
        revoke = {
            "token": lambda: feeding.elsewhere.revoke_token(ISSUER, "stolen"),
            "session": lambda: feeding.endings.end(session_id),
            "user": lambda: feeding.endings.revoke_user(
                feeding.uid, Identity(ISSUER, "users/gone")
            ),
            "client": lambda: feeding.endings.revoke_client(CLIENT),
        }
        held: dict[str, list[Open | Unread]] = {}
        for number, (what, changes) in enumerate(claims.items()):
            token = door.token(**changes)
            held[what] = [Open(door.channel(), kind, stack, token) for kind in STREAMS]
            held[what].append(Unread(door, token, number))
        wait_until(lambda: len(door.probe.callers) == len(claims) * len(STREAMS))
        for what, how in revoke.items():
            before = time.monotonic()
            how()
            for stream in held.pop(what):
                stream.assert_ended("SESSION_ENDED", before)
            assert all(stream.is_open for others in held.values() for stream in others), what
        assert {event.code for event in door.events} == {"revoked"}
        wait_until(lambda: len(door.guard.watch) == len(held["none"]))


def test_M1_what_is_revoked_of_one_issuer_ends_no_stream_and_no_call_of_anothers(
    tmp_path: Path, style: str
) -> None:
    """Two tokens that say the same of ID, session, user and client; only the issuer differs."""
    other = Issuer("https://other", "audience")
    theirs = JWTAuthenticator(
        name="other",
        issuer=other.name,
        audience=other.audience,
        keys=other.key_set.get,
        max_lifetime=7200,
        leeway=10,
        clock=time.time,
    )
    with (
        feed(tmp_path) as feeding,
        open_door(tmp_path, style=style, revocations=feeding.revocations, before=(theirs,)) as door,
        ExitStack() as stack,
    ):
        stack.callback(hold(door))
        claims: dict[str, Any] = {
            "sid": feeding.session().session_id,
            "sub": "users/gone",
            "client_id": CLIENT,
            "roles": ["admin"],
            "iat": int(time.time()) - 1,
        }
        ours = door.token(jti="same", **claims)
        revoked, kept = (other.token(door.thumbprint, jti=j, **claims) for j in ("same", "else"))
        held: dict[str, list[Open | Unread]] = {}
        for number, token in enumerate((ours, revoked, kept)):
            held[token] = [Open(door.channel(), kind, stack, token) for kind in STREAMS]
            held[token].append(Unread(door, token, number))
        wait_until(lambda: len(door.probe.callers) == 3 * len(STREAMS))
        door.probe.behave = lambda request, _context: request

        def asked() -> list[grpc.StatusCode]:
            channel = door.channel()
            return [ask(channel, "unary_unary", f"Bearer {token}").code for token in held]

        before = time.monotonic()
        feeding.elsewhere.revoke_token(other.name, "same")
        for stream in held[revoked]:
            stream.assert_ended("SESSION_ENDED", before)
        assert all(stream.is_open for stream in (*held[ours], *held[kept]))
        assert asked() == [grpc.StatusCode.OK, UA, grpc.StatusCode.OK]
        before = time.monotonic()
        feeding.endings.end(claims["sid"])
        feeding.endings.revoke_user(feeding.uid, Identity(ISSUER, "users/gone"))
        feeding.endings.revoke_client(CLIENT)
        feeding.elsewhere.revoke_token(ISSUER, "else")
        for stream in held[ours]:
            stream.assert_ended("SESSION_ENDED", before)
        assert all(stream.is_open for stream in held[kept])
        assert asked() == [UA, UA, grpc.StatusCode.OK]


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("style", ["aio-generator", "aio-writer"])
def test_G11_a_handler_that_refuses_to_be_cancelled_does_not_keep_its_stream_open(
    tmp_path: Path, style: str, kind: str
) -> None:
    with (
        feed(tmp_path) as feeding,
        open_door(tmp_path, style=style, revocations=feeding.revocations) as door,
        ExitStack() as stack,
    ):
        over = asyncio.Event()

        async def stubborn(request: bytes, _context: Any) -> bytes:
            while not over.is_set():
                with suppress(asyncio.CancelledError):
                    await over.wait()
            return request

        door.probe.behave = stubborn
        stack.callback(lambda: event_loop().run(_set(over)))
        stream = Open(door.channel(), kind, stack, door.token(jti="stolen"))
        wait_until(lambda: len(door.probe.callers) == 1)
        before = time.monotonic()
        feeding.elsewhere.revoke_token(ISSUER, "stolen")
        stream.assert_ended("SESSION_ENDED", before)


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_U19_a_logout_on_another_replica_refuses_the_token_here_within_a_second(
    tmp_path: Path, style: str
) -> None:
    """Every token of the session, or a single token without a session; no other token."""
    with (
        feed(tmp_path) as feeding,
        open_door(tmp_path, style=style, revocations=feeding.revocations) as door,
    ):
        session_id = feeding.session().session_id
        of_session = [door.token(sid=session_id) for _ in range(2)]
        single, other = door.token(jti="single"), door.token()
        channel = door.channel()

        def code(token: str) -> grpc.StatusCode:
            return ask(channel, "unary_unary", f"Bearer {token}").code

        # The second token of the session was never seen here: it is refused all the same.
        assert [code(token) for token in (of_session[0], single, other)] == [grpc.StatusCode.OK] * 3
        before = time.monotonic()
        feeding.endings.end(session_id)
        feeding.elsewhere.revoke_token(ISSUER, "single")
        wait_until(lambda: code(of_session[0]) is UA and code(single) is UA)
        assert time.monotonic() - before < 1.0
        assert code(of_session[1]) is UA
        assert code(other) is grpc.StatusCode.OK


def test_U18_a_refresh_token_opens_no_call(tmp_path: Path, style: str) -> None:
    with feed(tmp_path) as feeding, open_door(tmp_path, style=style) as door:
        refresh_token = feeding.session().refresh_token
        assert ask(door.channel(), "unary_unary", f"Bearer {refresh_token}").code is UA
        assert door.probe.parsed == []


def test_J21_every_spelling_of_a_revoked_token_is_revoked(tmp_path: Path, style: str) -> None:
    """Spellings that the guard has cached and ones that it has never seen."""
    with (
        feed(tmp_path) as feeding,
        open_door(tmp_path, style=style, revocations=feeding.revocations) as door,
    ):
        token = door.token(jti="stolen")
        signing_input, _, signature = token.rpartition(".")
        r, s = (int.from_bytes(half) for half in _halves(parts(token)[2]))
        twin = f"{signing_input}.{b64(r.to_bytes(32) + (ORDER - s).to_bytes(32))}"
        # Four bits of the last character are of no byte: a lax decoder reads all of these alike.
        last = ALPHABET.index(signature[-1]) & ~15
        respelt = [signature[:-1] + ALPHABET[last + bits] for bits in range(16)]
        padded = [f"{token}=", f"{token}==", f"{token}."]
        spellings = [twin, *padded, *(f"{signing_input}.{one}" for one in respelt)]
        assert token in spellings
        channel = door.channel()

        def code(spelling: str) -> grpc.StatusCode:
            return ask(channel, "unary_unary", f"Bearer {spelling}").code

        assert code(token) is grpc.StatusCode.OK
        feeding.elsewhere.revoke_token(ISSUER, "stolen")
        wait_until(lambda: code(token) is UA)
        assert {code(spelling) for spelling in spellings} == {UA}
        assert "revoked" in {event.code for event in door.events[-len(spellings) :]}


def _halves(raw: bytes) -> tuple[bytes, bytes]:
    return raw[:32], raw[32:]


def test_O1_streams_stay_open_until_the_feed_is_too_old_and_then_end_as_unavailable(
    tmp_path: Path, style: str
) -> None:
    """Until then verified tokens are accepted; then every call with a token is refused, which might
    be revoked. Calls without a token are still served.
    """
    with (
        feed(tmp_path, max_staleness=1.0) as feeding,
        open_door(tmp_path, style=style, revocations=feeding.revocations) as door,
        ExitStack() as stack,
    ):
        stack.callback(hold(door))
        token, channel = door.token(), door.channel()
        streams = [Open(channel, kind, stack, token) for kind in STREAMS]
        anonymous = Open(channel, "stream_stream", stack, None, path="/probe.Open/stream_stream")
        wait_until(lambda: len(door.probe.callers) == len(streams) + 1)
        door.probe.behave = lambda request, _context: request

        def code(authorization: str | None, service: str = "probe.Probe") -> grpc.StatusCode:
            return ask(channel, "unary_unary", authorization, service=service).code

        feeding.database.close()
        assert code(f"Bearer {token}") is grpc.StatusCode.OK, "it was verified before"
        assert code(f"Bearer {door.token()}") is grpc.StatusCode.OK, "no call needs the store"
        assert all(stream.is_open for stream in streams)
        too_old_at = feeding.revocations._read_at + 1.0
        for stream in streams:
            stream.assert_ended("", too_old_at)
            assert stream.ended_at >= too_old_at
        for bearer in (token, door.token()):
            assert code(f"Bearer {bearer}") is UNAVAILABLE
        for kind in STREAMS:
            assert ask(channel, kind, f"Bearer {token}").code is UNAVAILABLE
        assert code(None, "probe.Open") is grpc.StatusCode.OK
        assert anonymous.is_open
        assert {event.code for event in door.events} == {"revocations_stale"}
