"""Snapshots of everything that is revoked, in the form that the guard looks up."""

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
"""Entries of the delta, which is copied at every revocation. A larger delta (an eighth of the base
where that is more) is merged into the base, so a revocation costs the same beside ten others as
beside a million."""

UNNAMED = ""
"""The issuer of a line without one, which an older version wrote."""


class RevocationKind(StrEnum):
    """What was revoked: an access token (``jti``), a session, or a user's or client's tokens."""

    JTI = "jti"
    SESSION = "session"
    USER = "user"
    CLIENT = "client"


class Revocation(NamedTuple):
    """A token, session, user or client that is revoked, by the ``value`` that ``issuer`` gave it.

    Another issuer may use the same ``value`` for something else.
    """

    issuer: str
    kind: RevocationKind
    value: str


class NotBefore(NamedTuple):
    """Revokes what was issued to a user or a client up to ``issued_until``, and is deleted at
    ``expire_time``. Both are in seconds since the epoch.

    The tokens of ``except_session`` are not revoked. A newer cut replaces an older one, even where
    it excepts a session: that session was alive, so it began after the older cut.
    """

    issued_until: float
    expire_time: float
    except_session: str | None = None


Entry = tuple[str, str, str, float, float | None, str | None]
"""A line of the feed: issuer, kind, value, ``expire_time``, and of users and clients
``issued_until`` and ``except_session``."""


@dataclass(frozen=True, slots=True)
class RevokedOfIssuer:
    """Revocations of one issuer; immutable. ``tokens`` and ``sessions`` have their expiry, in
    seconds since the epoch.
    """

    tokens: Mapping[str, float] = field(default_factory=dict)
    sessions: Mapping[str, float] = field(default_factory=dict)
    users: Mapping[str, NotBefore] = field(default_factory=dict)
    clients: Mapping[str, NotBefore] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens) + len(self.sessions) + len(self.users) + len(self.clients)

    def is_revoked(self, principal: Principal) -> bool:
        """Whether a principal of this issuer is revoked by these."""
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
        """Return until when tokens issued to these are revoked; 0 where none are."""
        user, client = self.users.get(subject), self.clients.get(client_id)
        return max(user.issued_until if user else 0, client.issued_until if client else 0)

    def with_(self, newer: RevokedOfIssuer) -> RevokedOfIssuer:
        """Return both together; of two cuts of the same user or client, the newer one."""
        return RevokedOfIssuer(
            _both(self.tokens, newer.tokens),
            _both(self.sessions, newer.sessions),
            _both(self.users, newer.users),
            _both(self.clients, newer.clients),
        )

    def live(self, now: float) -> RevokedOfIssuer:
        """Return those that have not expired."""
        return RevokedOfIssuer(
            {value: ends for value, ends in self.tokens.items() if ends > now},
            {value: ends for value, ends in self.sessions.items() if ends > now},
            {value: cut for value, cut in self.users.items() if cut.expire_time > now},
            {value: cut for value, cut in self.clients.items() if cut.expire_time > now},
        )


def _both(older: Mapping[str, _T], newer: Mapping[str, _T]) -> Mapping[str, _T]:
    # Both are immutable: where one is empty, the other need not be copied.
    return {**older, **newer} if older and newer else older or newer


_NOTHING = RevokedOfIssuer()


@dataclass(frozen=True, slots=True)
class Entries:
    """Revocations by issuer; immutable.

    Tokens under ``UNNAMED`` were revoked by an older version: they are refused of every issuer.
    """

    by_issuer: Mapping[str, RevokedOfIssuer] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry], *, ours: str) -> Entries:
        """Group entries by issuer and kind. ``ours`` is this server's own issuer: sessions, users
        and clients of lines without an issuer belong to it.
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
        """Whether the principal is revoked by these; revocations of other issuers do not count."""
        if self.by_issuer.get(principal.issuer, _NOTHING).is_revoked(principal):
            return True
        return principal.token_id in self.by_issuer.get(UNNAMED, _NOTHING).tokens

    def issued_until(self, identity: Identity, client_id: str) -> float:
        """Return until when tokens issued to these are revoked; 0 where none are."""
        theirs = self.by_issuer.get(identity.issuer, _NOTHING)
        return theirs.issued_until(identity.subject, client_id)

    def with_(self, newer: Entries) -> Entries:
        """Return both together."""
        both = dict(self.by_issuer)
        for issuer, more in newer.by_issuer.items():
            both[issuer] = both.get(issuer, _NOTHING).with_(more)
        return Entries(both)

    def live(self, now: float) -> Entries:
        """Return those that have not expired."""
        live = {issuer: revoked.live(now) for issuer, revoked in self.by_issuer.items()}
        return Entries({issuer: revoked for issuer, revoked in live.items() if revoked})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is revoked at one moment; immutable, and replaced as a whole.

    It has a large base and a small delta, so that adding one revocation to a million copies only
    the delta. An entry is kept only as long as a token that it concerns may live.
    """

    generation: int = 0
    base: Entries = field(default_factory=Entries)
    delta: Entries = field(default_factory=Entries)

    def __len__(self) -> int:
        return len(self.base) + len(self.delta)

    is_current = True
    """A snapshot by itself never goes stale; ``Revocations`` knows when it was read."""

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the token, its session, user or client is revoked. Takes no lock."""
        return self.base.is_revoked(principal) or self.delta.is_revoked(principal)

    def issued_until(self, identity: Identity, client_id: str) -> float:
        """Return until when tokens issued to these are revoked; 0 where none are."""
        return max(
            self.base.issued_until(identity, client_id),
            self.delta.issued_until(identity, client_id),
        )

    def with_(self, newer: Entries) -> Snapshot:
        """Return the next snapshot, with more entries."""
        base, delta = self.base, self.delta.with_(newer)
        if len(delta) > max(_LARGEST_DELTA, len(base) // 8):
            base, delta = base.with_(delta), Entries()
        return Snapshot(self.generation + 1, base, delta)

    def live(self, now: float) -> Snapshot:
        """Return the next snapshot, without expired entries; this one where none has expired."""
        base, delta = self.base.live(now), self.delta.live(now)
        if len(base) + len(delta) == len(self):
            return self
        return Snapshot(self.generation + 1, base, delta)
