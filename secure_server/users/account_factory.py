"""Creating and changing account values, with times, UIDs and etags."""

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
    """Creates accounts and their next versions. ``clock`` gives seconds since the epoch."""

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
        """Return a new account with a new ``uid`` (AIP-148)."""
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
        """Return the account with a new ``update_time`` and etag (AIP-154)."""
        return replace(account, update_time=self.clock(), etag=self._etag())

    def record(self, account: Account, initial_password_hash: str | None) -> Record:
        """Return a record of the account with an initial password, or with none."""
        if initial_password_hash is None:
            return Record(account, None, None)
        expires_at = account.update_time + INITIAL_PASSWORD_SECONDS
        return Record(account, initial_password_hash, expires_at)

    def _etag(self) -> str:
        return urlsafe_b64encode(self.random_bytes(12)).decode()
