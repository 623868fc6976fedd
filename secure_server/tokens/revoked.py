"""Everything revoked at one moment, as the door looks it up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeVar

from secure_server.auth.identity import Identity
from secure_server.auth.principal import Principal

__all__ = [
    "UNNAMED",
    "Entries",
    "Entry",
    "NotBefore",
    "Revocation",
    "RevocationKind",
    "RevokedOfIssuer",
    "Snapshot",
]

_T = TypeVar("_T")

_LARGEST_DELTA = 1024
"""Entries that are copied at every revocation; more are worked into the base, an eighth at a
time, so that one revocation costs the same whether there are ten others or a million."""

UNNAMED = ""
"""The issuer of a line that names none: an older version wrote it."""


class RevocationKind(StrEnum):
    """What was revoked: an access token (``jti``), a session, or what a user or a client holds."""

    JTI = "jti"
    SESSION = "session"
    USER = "user"
    CLIENT = "client"


class Revocation(NamedTuple):
    """What is revoked: a token, session, user or client, by the name that ``issuer`` gave it.

    Other issuers may use the same ``value``: it says nothing without the issuer.
    """

    issuer: str
    kind: RevocationKind
    value: str


class NotBefore(NamedTuple):
    """Of a user or a client everything that was issued until then; forgotten at ``expire_time``.

    The tokens of one session may be excepted. A newer cut may replace an older one: a session that
    it excepts was alive, so it began after the older one.
    """

    issued_until: float
    expire_time: float
    except_session: str | None = None


Entry = tuple[str, str, str, float, float | None, str | None]
"""A line of the feed: issuer, kind, value, ``expire_time``, and of users and clients
``issued_until`` and ``except_session``."""


@dataclass(frozen=True, slots=True)
class RevokedOfIssuer:
    """Some of what is revoked of one issuer's; never changed. Tokens and sessions go with their
    expiry.
    """

    tokens: Mapping[str, float] = field(default_factory=dict)
    sessions: Mapping[str, float] = field(default_factory=dict)
    users: Mapping[str, NotBefore] = field(default_factory=dict)
    clients: Mapping[str, NotBefore] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens) + len(self.sessions) + len(self.users) + len(self.clients)

    def is_revoked(self, principal: Principal) -> bool:
        """Whether these speak of a principal of this issuer."""
        if principal.token_id in self.tokens or principal.session_id in self.sessions:
            return True
        if not self.users and not self.clients:
            return False
        issued_at = float(principal.claims.get("iat", 0))
        user, client = self.users.get(principal.subject), self.clients.get(principal.client_id)
        if client is not None and issued_at <= client.issued_until:
            return True
        return (
            user is not None
            and issued_at <= user.issued_until
            and (user.except_session is None or user.except_session != principal.session_id)
        )

    def issued_until(self, subject: str, client_id: str) -> float:
        """Tokens of theirs that were issued until then are revoked; 0 where none are."""
        user, client = self.users.get(subject), self.clients.get(client_id)
        return max(user.issued_until if user else 0, client.issued_until if client else 0)

    def with_(self, newer: RevokedOfIssuer) -> RevokedOfIssuer:
        """Both; where they speak of the same user or client, the newer cut holds."""
        return RevokedOfIssuer(
            _both(self.tokens, newer.tokens),
            _both(self.sessions, newer.sessions),
            _both(self.users, newer.users),
            _both(self.clients, newer.clients),
        )

    def live(self, now: float) -> RevokedOfIssuer:
        """Those that have not expired."""
        return RevokedOfIssuer(
            {value: ends for value, ends in self.tokens.items() if ends > now},
            {value: ends for value, ends in self.sessions.items() if ends > now},
            {value: cut for value, cut in self.users.items() if cut.expire_time > now},
            {value: cut for value, cut in self.clients.items() if cut.expire_time > now},
        )


def _both(older: Mapping[str, _T], newer: Mapping[str, _T]) -> Mapping[str, _T]:
    # They never change: where one is empty, the other need not be copied.
    return {**older, **newer} if older and newer else older or newer


_NOTHING = RevokedOfIssuer()


@dataclass(frozen=True, slots=True)
class Entries:
    """Some of what is revoked, by issuer; never changed.

    Under ``UNNAMED`` stand tokens that an older version revoked: of whichever issuer they are.
    """

    by_issuer: Mapping[str, RevokedOfIssuer] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry], *, ours: str) -> Entries:
        """The entries by issuer and kind. ``ours`` is our own issuer, of which sessions, users and
        clients were at all times, also where a line does not say so.
        """
        tokens: dict[str, dict[str, float]] = {}
        sessions: dict[str, dict[str, float]] = {}
        users: dict[str, dict[str, NotBefore]] = {}
        clients: dict[str, dict[str, NotBefore]] = {}
        for issuer, kind, value, expire_time, issued_until, except_session in entries:
            if issued_until is not None:
                cut = NotBefore(issued_until, expire_time, except_session)
                cuts = users if kind == RevocationKind.USER else clients
                cuts.setdefault(issuer or ours, {})[value] = cut
            elif kind == RevocationKind.JTI:
                tokens.setdefault(issuer, {})[value] = expire_time
            else:
                sessions.setdefault(issuer or ours, {})[value] = expire_time
        return cls(
            {
                issuer: RevokedOfIssuer(
                    tokens.get(issuer, {}),
                    sessions.get(issuer, {}),
                    users.get(issuer, {}),
                    clients.get(issuer, {}),
                )
                for issuer in {*tokens, *sessions, *users, *clients}
            }
        )

    def __len__(self) -> int:
        return sum(map(len, self.by_issuer.values()))

    def is_revoked(self, principal: Principal) -> bool:
        """Whether these speak of the principal: by what its own issuer says, and no other."""
        if self.by_issuer.get(principal.issuer, _NOTHING).is_revoked(principal):
            return True
        return principal.token_id in self.by_issuer.get(UNNAMED, _NOTHING).tokens

    def issued_until(self, identity: Identity, client_id: str) -> float:
        """Tokens of theirs that were issued until then are revoked; 0 where none are."""
        theirs = self.by_issuer.get(identity.issuer, _NOTHING)
        return theirs.issued_until(identity.subject, client_id)

    def with_(self, newer: Entries) -> Entries:
        """Both."""
        both = dict(self.by_issuer)
        for issuer, more in newer.by_issuer.items():
            both[issuer] = both.get(issuer, _NOTHING).with_(more)
        return Entries(both)

    def live(self, now: float) -> Entries:
        """Those that have not expired."""
        live = {issuer: revoked.live(now) for issuer, revoked in self.by_issuer.items()}
        return Entries({issuer: revoked for issuer, revoked in live.items() if revoked})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything revoked at one moment; replaced whole, never changed.

    A large base and a small delta, so that to add one to a million copies a thousand at the most.
    Each entry lives only as long as a token could.
    """

    generation: int = 0
    base: Entries = field(default_factory=Entries)
    delta: Entries = field(default_factory=Entries)

    def __len__(self) -> int:
        return len(self.base) + len(self.delta)

    is_current = True
    """As far as it goes: ``Revocations`` knows when it was made."""

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the token is revoked, or its session, user or client. Look-ups, no lock."""
        return self.base.is_revoked(principal) or self.delta.is_revoked(principal)

    def issued_until(self, identity: Identity, client_id: str) -> float:
        """Of the tokens for these, all that were issued until then are revoked."""
        return max(
            self.base.issued_until(identity, client_id),
            self.delta.issued_until(identity, client_id),
        )

    def with_(self, newer: Entries) -> Snapshot:
        """The next one, with more."""
        base, delta = self.base, self.delta.with_(newer)
        if len(delta) > max(_LARGEST_DELTA, len(base) // 8):
            base, delta = base.with_(delta), Entries()
        return Snapshot(self.generation + 1, base, delta)

    def live(self, now: float) -> Snapshot:
        """The next one, without what has expired; this one, where nothing has."""
        base, delta = self.base.live(now), self.delta.live(now)
        if len(base) + len(delta) == len(self):
            return self
        return Snapshot(self.generation + 1, base, delta)
