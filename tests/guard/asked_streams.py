"""Streams whose issuer is asked again each second, and what ends them."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from secure_server.auth import AuthenticatorUnavailable, Credentials, Principal
from secure_server.auth.matchers import Prefix
from secure_server.authz import Policy
from secure_tls.trust import Trust
from support.door import Door, open_door
from support.open_streams import hold

Move = Callable[[float], None]
"""Sets the clock to so many seconds after the start."""


class Revoked:
    """Revocations that a test makes."""

    is_current = True

    def __init__(self) -> None:
        self.generation = 0
        self.tokens: set[str] = set()
        self._told: list[Callable[[], None]] = []

    def is_revoked(self, principal: Principal) -> bool:
        return principal.token_id in self.tokens

    def revoke(self, token_id: str) -> None:
        self.tokens.add(token_id)
        self.generation += 1
        for told in tuple(self._told):
            told()

    def subscribe(self, told: Callable[[], None]) -> Callable[[], None]:
        self._told.append(told)
        return lambda: self._told.remove(told)


def trust(door: Door, new: Trust) -> None:
    door.tls.change(dataclasses.replace(door.tls.value, trust=new))


class Asking:
    """Has to ask its issuer again each second, and cannot any more once it ``is_down``; while the
    issuer is not ``answering``, it waits.
    """

    name = "asking"
    matchers = (Prefix("opaque-"),)

    def __init__(self, clock: Callable[[], float], ends: Mapping[str, float]) -> None:
        self.is_down = False
        self.answering = threading.Event()
        self.answering.set()
        self.waiting = 0
        self._clock = clock
        self._ends = ends

    def authenticate(self, credentials: Credentials | None, _peer: object) -> Principal | None:
        if credentials is None or credentials.value not in self._ends:
            return None
        if not self.answering.is_set():
            self.waiting += 1
            self.answering.wait(30)
        if self.is_down:
            raise AuthenticatorUnavailable("network", "the issuer is down")
        return Principal(
            subject=f"users/{credentials.value}",
            issuer="https://opaque",
            authenticator=self.name,
            roles=frozenset({"admin"}),
            token_id=credentials.value,
            expires_at=self._ends[credentials.value],
            recheck_at=self._clock() + 1,
        )


@contextmanager
def asked_door(tmp_path: Path, style: str) -> Iterator[tuple[Door, Asking, Move, ExitStack]]:
    """A guarded server for ``opaque-one``, which expires after 300 s, and ``opaque-other``."""
    moment = [time.time()]
    now = moment[0]
    asking = Asking(lambda: moment[0], {"opaque-one": now + 300, "opaque-other": now + 3600})

    def move(seconds: float) -> None:
        moment[0] = now + seconds

    with (
        open_door(
            tmp_path,
            style=style,
            clock=lambda: moment[0],
            before=(asking,),
            revocations=Revoked(),
        ) as door,
        ExitStack() as stack,
    ):
        stack.callback(hold(door))
        stack.callback(asking.answering.set)
        yield door, asking, move, stack


def revoked(door: Door, _move: Move) -> None:
    door.core._revocations.revoke("opaque-one")  # type: ignore[attr-defined]


def revoked_certificate(door: Door, _move: Move) -> None:
    trust(door, Trust((), {}))


def forbidden(door: Door, _move: Move) -> None:
    door.policy.change(
        Policy.parse(
            '{"name": "new", "allow_rules": [{"name": "other", '
            '"source": {"request_principals": ["https://opaque/users/opaque-other"]}}]}'
        )
    )


def over(_door: Door, move: Move) -> None:
    move(600)
