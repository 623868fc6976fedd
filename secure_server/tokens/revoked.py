"""Everything revoked at one moment, as the door looks it up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeVar

from secure_server.auth.principal import Principal

__all__ = ["Cut", "Entries", "Entry", "Kind", "Snapshot"]

_T = TypeVar("_T")

_LARGEST_DELTA = 1024
"""Entries that are copied at every revocation; more are worked into the base, an eighth at a
time, so that one revocation costs the same whether there are ten others or a million."""


class Kind(StrEnum):
    """What was revoked: an access token (``jti``), a session, or what a user or a client holds."""

    JTI = "jti"
    SESSION = "session"
    USER = "user"
    CLIENT = "client"


class Cut(NamedTuple):
    """Of a user or a client everything that was issued until then; forgotten at ``expire_time``."""

    issued_until: float
    expire_time: float


Entry = tuple[str, str, float, float | None]
"""A line of the feed: kind, value, ``expire_time``, and of users and clients ``issued_until``."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Some of what is revoked; never changed. Tokens and sessions go with their expiry."""

    tokens: Mapping[str, float] = field(default_factory=dict)
    sessions: Mapping[str, float] = field(default_factory=dict)
    users: Mapping[str, Cut] = field(default_factory=dict)
    clients: Mapping[str, Cut] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        """The entries by kind."""
        tokens: dict[str, float] = {}
        sessions: dict[str, float] = {}
        users: dict[str, Cut] = {}
        clients: dict[str, Cut] = {}
        for kind, value, expire_time, issued_until in entries:
            if issued_until is not None:
                cut = Cut(issued_until, expire_time)
                (users if kind == Kind.USER else clients)[value] = cut
            else:
                (tokens if kind == Kind.JTI else sessions)[value] = expire_time
        return cls(tokens, sessions, users, clients)

    def __len__(self) -> int:
        return len(self.tokens) + len(self.sessions) + len(self.users) + len(self.clients)

    def is_revoked(self, principal: Principal, issuer: str) -> bool:
        """Whether these speak of the principal; ``issuer`` is whose sessions and users they are."""
        if principal.token_id in self.tokens:
            return True
        if principal.issuer != issuer:
            return False
        if principal.session_id in self.sessions:
            return True
        if not self.users and not self.clients:
            return False
        until = self.issued_until(principal.subject, principal.client_id)
        return until > 0 and float(principal.claims.get("iat", 0)) <= until

    def issued_until(self, subject: str, client_id: str) -> float:
        """Tokens of theirs that were issued until then are revoked; 0 where none are."""
        user, client = self.users.get(subject), self.clients.get(client_id)
        return max(user.issued_until if user else 0, client.issued_until if client else 0)

    def with_(self, newer: Entries) -> Entries:
        """Both; where they speak of the same user or client, the newer cut holds."""
        return Entries(
            _both(self.tokens, newer.tokens),
            _both(self.sessions, newer.sessions),
            _both(self.users, newer.users),
            _both(self.clients, newer.clients),
        )

    def live(self, now: float) -> Entries:
        """Those that have not expired."""
        return Entries(
            {value: ends for value, ends in self.tokens.items() if ends > now},
            {value: ends for value, ends in self.sessions.items() if ends > now},
            {value: cut for value, cut in self.users.items() if cut.expire_time > now},
            {value: cut for value, cut in self.clients.items() if cut.expire_time > now},
        )


def _both(older: Mapping[str, _T], newer: Mapping[str, _T]) -> Mapping[str, _T]:
    # They never change: where one is empty, the other need not be copied.
    return {**older, **newer} if older and newer else older or newer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything revoked at one moment; replaced whole, never changed.

    A large base and a small delta, so that to add one to a million copies a thousand at the most.
    Each entry lives only as long as a token could.
    """

    issuer: str
    generation: int = 0
    base: Entries = field(default_factory=Entries)
    delta: Entries = field(default_factory=Entries)

    def __len__(self) -> int:
        return len(self.base) + len(self.delta)

    is_current = True
    """As far as it goes: ``Revocations`` knows when it was made."""

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the token is revoked, or its session, user or client. Look-ups, no lock."""
        return self.base.is_revoked(principal, self.issuer) or self.delta.is_revoked(
            principal, self.issuer
        )

    def issued_until(self, subject: str, client_id: str) -> float:
        """Of our own tokens for these, all that were issued until then are revoked."""
        return max(
            self.base.issued_until(subject, client_id), self.delta.issued_until(subject, client_id)
        )

    def with_(self, newer: Entries) -> Snapshot:
        """The next one, with more."""
        base, delta = self.base, self.delta.with_(newer)
        if len(delta) > max(_LARGEST_DELTA, len(base) // 8):
            base, delta = base.with_(delta), Entries()
        return Snapshot(self.issuer, self.generation + 1, base, delta)

    def live(self, now: float) -> Snapshot:
        """The next one, without what has expired; this one, where nothing has."""
        base, delta = self.base.live(now), self.delta.live(now)
        if len(base) + len(delta) == len(self):
            return self
        return Snapshot(self.issuer, self.generation + 1, base, delta)
