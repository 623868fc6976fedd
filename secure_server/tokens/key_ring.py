"""The keys that sign our access tokens, and those that still verify them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from secure_server.auth.keys import KeySet
from secure_server.auth.local_issuer import LEEWAY, MAX_TOKEN_LIFETIME
from secure_server.tokens.signing_key import SigningKey, SigningKeyError

VERIFIES_FOR = int(MAX_TOKEN_LIFETIME + LEEWAY)
"""Seconds that a key verifies after it has signed for the last time. Its last token has expired by
then, whatever lifetime was configured when that token was issued."""

_MOST_KEYS = 90  # verifiers of this project accept a set of at most 100


class KeyState(StrEnum):
    """Whether a key waits, signs or only verifies."""

    NEXT = "next"
    """Published, so that verifiers have it when it begins to sign."""
    SIGNING = "signing"
    VERIFYING = "verifying"
    """It no longer signs; its tokens are valid until they expire."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its state, ``since`` when and ``until`` when, in seconds since the epoch.

    ``until`` is None while no next key has been made.
    """

    key: SigningKey
    state: KeyState
    since: int
    until: int | None


class KeyRing:
    """The keys and their states at one moment; immutable, and replaced as a whole.

    Of the keys whose ``signs_from`` has come the newest signs. Older keys verify until their last
    token has expired; then they leave the ring, even where a file still has them.
    """

    def __init__(self, keys: Sequence[SigningKey], now: float) -> None:
        """``keys`` has at least one. ``now`` is in seconds since the epoch."""
        self._all = sorted(keys, key=lambda key: key.signs_from)
        self._now = now
        # Where the clock was set back to before every `signs_from`, the oldest key signs.
        begun = [number for number, key in enumerate(self._all) if key.signs_from <= now]
        self._signing = begun[-1] if begun else 0
        self.entries = tuple(reversed(list(self._states())))
        """Newest first."""
        self.keys: KeySet = MappingProxyType(
            {entry.key.key_id: entry.key.verification for entry in self.entries}
        )
        changes = [entry.until for entry in self.entries if entry.until is not None]
        self._good_until = min(changes, default=float("inf"))

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same keys for the same times: a file that was only written again
        is no change.
        """
        return isinstance(other, KeyRing) and self._schedule == other._schedule

    def __hash__(self) -> int:
        return hash(self._schedule)

    @property
    def _schedule(self) -> tuple[tuple[str, int, int], ...]:
        return tuple((key.key_id, key.published, key.signs_from) for key in self._all)

    def __repr__(self) -> str:
        return f"KeyRing(key_id={self.key_id!r}, keys={len(self.entries)})"

    @property
    def signing(self) -> SigningKey:
        """The key that signs."""
        return self._all[self._signing]

    @property
    def key_id(self) -> str:
        """The ``kid`` of the key that signs."""
        return self.signing.key_id

    @property
    def next(self) -> SigningKey | None:
        """The key that will sign next."""
        return next(iter(self._all[self._signing + 1 :]), None)

    @property
    def has_dead_keys(self) -> bool:
        """Whether this was built with keys that have left the ring."""
        return len(self.entries) < len(self._all)

    def sign(self, claims: dict[str, Any]) -> str:
        """Return an access token (RFC 9068, section 2) with these claims."""
        return self.signing.sign(claims)

    def public_jwks(self) -> list[dict[str, str]]:
        """Return the public keys as JSON Web Keys (RFC 7517), for verifiers of the tokens."""
        return [dict(entry.key.public_jwk) for entry in self.entries]

    def at(self, now: float) -> KeyRing:
        """Return the ring at another moment: this one while no key changes its state."""
        if self._now <= now < self._good_until:
            return self
        return KeyRing(self._all, now)

    def rotated(self, now: float, publishing: int) -> KeyRing:
        """Return the ring with a new key that signs ``publishing`` seconds after ``now``.

        It replaces a key that was to sign next, which has signed nothing yet. Raises
        ``SigningKeyError`` where the ring has too many keys.
        """
        begin = int(now)
        entries = self.at(now).entries
        kept = [
            replace(entry.key, signs_from=min(entry.key.signs_from, begin))
            for entry in entries
            if entry.state is not KeyState.NEXT
        ]
        if len(kept) >= _MOST_KEYS:
            end = datetime.fromtimestamp(entries[-1].until or begin, UTC)
            raise SigningKeyError(
                f"There are {len(kept)} keys whose tokens are still valid, and verifiers accept no "
                f"more. The oldest ends at {end:%H:%M:%S} UTC: rotate then."
            )
        return KeyRing([*reversed(kept), SigningKey.generate(begin, begin + publishing)], now)

    def _states(self) -> Iterator[Entry]:
        for number, key in enumerate(self._all):
            after = self._all[number + 1].signs_from if number + 1 < len(self._all) else None
            if number > self._signing:
                yield Entry(key, KeyState.NEXT, key.published, key.signs_from)
            elif number == self._signing:
                yield Entry(key, KeyState.SIGNING, key.signs_from, after)
            elif after is not None and self._now < after + VERIFIES_FOR:
                yield Entry(key, KeyState.VERIFYING, after, after + VERIFIES_FOR)
