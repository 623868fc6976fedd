"""New values of accounts: what the clock and chance put into them."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace

from secure_server.users.account import Account, AccountState
from secure_server.users.records import Record

__all__ = ["INITIAL_PASSWORD_SECONDS", "AccountFactory"]

INITIAL_PASSWORD_SECONDS = 7 * 24 * 3600.0
"""How long an initial password works."""


@dataclass(frozen=True, slots=True)
class AccountFactory:
    """Makes accounts, and their next versions. ``clock`` gives seconds since the epoch."""

    clock: Callable[[], float]
    random_bytes: Callable[[int], bytes]

    def account(
        self,
        name: str,
        *,
        email: str,
        display_name: str,
        roles: tuple[str, ...],
        state: AccountState,
    ) -> Account:
        """A new one, with a uid of its own (AIP-148)."""
        now = self.clock()
        return Account(
            uid=str(uuid.UUID(bytes=self.random_bytes(16), version=4)),
            name=name,
            email=email,
            display_name=display_name,
            roles=roles,
            state=state,
            create_time=now,
            update_time=now,
            etag=self._etag(),
        )

    def touched(self, account: Account) -> Account:
        """The same, changed now: with the next etag (AIP-154)."""
        return replace(account, update_time=self.clock(), etag=self._etag())

    def record(self, account: Account, initial_password_hash: str | None) -> Record:
        """The account with a password that works once, or with none."""
        if initial_password_hash is None:
            return Record(account, None, None)
        expires_at = account.update_time + INITIAL_PASSWORD_SECONDS
        return Record(account, initial_password_hash, expires_at)

    def _etag(self) -> str:
        return urlsafe_b64encode(self.random_bytes(12)).decode()
