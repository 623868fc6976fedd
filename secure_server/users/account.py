"""One account, the same for every caller who may read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

__all__ = ["ADMIN", "Account", "AccountState"]

ADMIN = "admin"
"""The role that administers users."""


class AccountState(StrEnum):
    """Whether a user may log in."""

    ACTIVE = "active"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Account:
    """One user as an immutable value, without secrets.

    ``uid`` is a UUID that no other user ever has (AIP-148); ``name`` the user name, without
    ``users/``. ``roles`` is sorted and without repetitions. Times are seconds since the epoch.
    """

    uid: str
    name: str
    email: str
    display_name: str
    roles: tuple[str, ...]
    state: AccountState
    create_time: float
    update_time: float
    etag: str

    @property
    def resource_name(self) -> str:
        """``users/{user}`` (AIP-122)."""
        return f"users/{self.name}"

    @property
    def is_active_admin(self) -> bool:
        """Whether this is an active administrator, of whom there must always be one."""
        return ADMIN in self.roles and self.state is AccountState.ACTIVE

    def to_json(self) -> dict[str, Any]:
        """Return a value that the store keeps as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Account:
        """Return the account from what ``to_json`` returned."""
        return cls(
            **{**stored, "roles": tuple(stored["roles"]), "state": AccountState(stored["state"])}
        )
