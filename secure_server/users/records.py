"""Accounts in the store. Functions that change one also write to the feed of changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from secure_server.store.schema import sessions, user_changes, users
from secure_server.users.account import ADMIN, Account, AccountState
from secure_server.users.changes import ChangeKind
from secure_server.users.errors import NotFoundError

__all__ = [
    "Record",
    "add",
    "change",
    "count_admins",
    "find",
    "find_by_uid",
    "has_other_active_admin",
    "known",
    "page",
    "remove",
    "set_initial_password",
    "swap_password",
]


@dataclass(frozen=True, slots=True)
class Record:
    """An account with its password hash, for use within ``secure_server.users`` only.

    ``password_expires_at`` is set while the password is an initial one; seconds since the epoch.
    """

    account: Account
    password_hash: str | None = field(repr=False)
    password_expires_at: float | None

    @property
    def has_initial_password(self) -> bool:
        return self.password_expires_at is not None


def find(connection: Connection, name: str) -> Record | None:
    return _one(connection, users.c.name == name)


def find_by_uid(connection: Connection, uid: str) -> Record | None:
    return _one(connection, users.c.uid == uid)


def known(record: Record | None) -> Record:
    """The record itself. Raises ``NotFoundError`` where there is none."""
    if record is None:
        raise NotFoundError("There is no such user.")
    return record


def page(connection: Connection, after_name: str, limit: int) -> list[Account]:
    query = select(users).where(users.c.name > after_name).order_by(users.c.name).limit(limit)
    return [_record(row).account for row in connection.execute(query)]


def count_admins(connection: Connection) -> int:
    """Return how many users have the role, active or not; 2 stands for two or more."""
    query = select(users.c.uid).where(users.c.is_admin).limit(2)
    return len(connection.execute(query).all())


def has_other_active_admin(connection: Connection, uid: str) -> bool:
    query = select(users.c.uid).where(
        users.c.is_admin, users.c.state == AccountState.ACTIVE.value, users.c.uid != uid
    )
    return connection.execute(query.limit(1)).first() is not None


def add(connection: Connection, record: Record) -> None:
    connection.execute(
        insert(users).values(
            **_columns(record.account),
            password_hash=record.password_hash,
            password_expire_time=record.password_expires_at,
        )
    )
    _tell(connection, ChangeKind.CREATED, record.account, record.account.create_time)


def change(connection: Connection, account: Account) -> None:
    """Store everything but the password as it is in ``account``."""
    connection.execute(update(users).where(users.c.uid == account.uid).values(**_columns(account)))
    _tell(connection, ChangeKind.UPDATED, account, account.update_time)


def remove(connection: Connection, account: Account, now: float) -> None:
    connection.execute(delete(users).where(users.c.uid == account.uid))
    _tell(connection, ChangeKind.DELETED, account, now)


def set_initial_password(connection: Connection, record: Record) -> None:
    connection.execute(
        update(users)
        .where(users.c.uid == record.account.uid)
        .values(password_hash=record.password_hash, password_expire_time=record.password_expires_at)
    )


def swap_password(connection: Connection, uid: str, *, old: str, new: str) -> bool:
    """Replace the hash if the user is active and it is still the one that was verified.

    The new password is not an initial one. The feed of changes is left to the caller.
    """
    result = connection.execute(
        update(users)
        .where(
            users.c.uid == uid,
            users.c.password_hash == old,
            users.c.state == AccountState.ACTIVE.value,
        )
        .values(password_hash=new, password_expire_time=None)
    )
    return result.rowcount == 1


def has_sessions(connection: Connection, uid: str) -> bool:
    """Whether the user has sessions, including ended ones that are not deleted yet."""
    mine = select(sessions.c.session_id).where(sessions.c.user_uid == uid).limit(1)
    return connection.execute(mine).first() is not None


def _tell(connection: Connection, kind: ChangeKind, account: Account, now: float) -> None:
    connection.execute(
        insert(user_changes).values(time=now, kind=kind.value, account=account.to_json())
    )


def _one(connection: Connection, condition: ColumnElement[bool]) -> Record | None:
    row = connection.execute(select(users).where(condition)).one_or_none()
    return None if row is None else _record(row)


def _columns(account: Account) -> dict[str, Any]:
    return {**account.to_json(), "is_admin": ADMIN in account.roles}


def _record(row: Row[Any]) -> Record:
    account = Account(
        uid=row.uid,
        name=row.name,
        email=row.email,
        display_name=row.display_name,
        roles=tuple(row.roles),
        state=AccountState(row.state),
        create_time=row.create_time,
        update_time=row.update_time,
        etag=row.etag,
    )
    return Record(account, row.password_hash, row.password_expire_time)
