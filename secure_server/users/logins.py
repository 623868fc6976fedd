"""Logging in by a password, and changing it."""

from __future__ import annotations

import os
from collections.abc import Callable

from sqlalchemy import Connection

from secure_server.store.database import Database
from secure_server.users import records, rules
from secure_server.users.account import Account, AccountState
from secure_server.users.account_factory import AccountFactory
from secure_server.users.accounts import EndSessions
from secure_server.users.errors import (
    BadCredentialsError,
    InvalidArgumentError,
    PasswordChangeRequiredError,
    PermissionDeniedError,
)
from secure_server.users.password_rules import check_replacement, encode_password
from secure_server.users.passwords import Passwords
from secure_server.users.records import Record

__all__ = ["Logins"]


class Logins:
    """Verifies the passwords of users, and replaces them.

    Passwords are hashed before a transaction, never inside: the transaction checks again that the
    hash which was verified is still in force. Every method raises ``StoreError`` where the database
    fails; names are user names, without ``users/``.
    """

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        *,
        clock: Callable[[], float],
        end_sessions: EndSessions,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``clock`` gives seconds since the epoch. ``end_sessions`` is called in the transaction
        that replaces a password.
        """
        self._database = database
        self._passwords = passwords
        self._clock = clock
        self._end_sessions = end_sessions
        self._mint = AccountFactory(clock, random_bytes)

    def change_password(
        self, name: str, current: str, new: str, *, keep_session: str | None = None
    ) -> int:
        """Replace a user's password; returns how many other sessions were ended.

        Raises ``InvalidArgumentError`` (the new one breaks a rule), ``PermissionDeniedError`` (the
        current one is wrong, or an initial one, which only ``log_in`` accepts) and
        ``OverloadedError``.
        """
        check_replacement(
            current,
            new,
            user_name=name,
            old_field="current_password",
            new_field="new_password",
        )
        record = self._find(name)
        stored = None if record is None or record.has_initial_password else _usable(record)
        verified = self._passwords.verify(stored, current)
        if record is None or stored is None or not verified:
            raise _wrong_password()
        password_hash = self._passwords.hash(new)
        with self._database.write() as connection:
            if not self._replace_password(connection, record.account.uid, stored, password_hash):
                raise _wrong_password()
            return self._end_sessions(connection, record.account.uid, keep_session)

    def log_in(
        self,
        user_name: str,
        password: str,
        new_password: str = "",
        *,
        on_success: Callable[[Connection, Account], None] | None = None,
    ) -> Account:
        """Verify a password and return its user.

        ``new_password`` replaces an initial password, and is refused with any other; of several
        log-ins at once with one initial password exactly one succeeds. ``on_success`` runs in the
        transaction that confirms the password: it opens no session where the password or the
        user's state changes meanwhile.

        Raises ``BadCredentialsError``, with the same text and after the same work for an unknown
        user, a wrong password, a disabled user and an expired initial password;
        ``PasswordChangeRequiredError`` (the right initial password without ``new_password``),
        ``InvalidArgumentError`` and ``OverloadedError``.
        """
        encode_password(password)
        if new_password:
            # These rules depend on the request alone, so the early answer reveals nothing.
            check_replacement(
                password,
                new_password,
                user_name=user_name,
                old_field="password",
                new_field="new_password",
            )
        record = self._find(user_name)
        stored = _usable(record, now=self._clock())
        verified = self._passwords.verify(stored, password)
        if record is None or stored is None or not verified:
            raise BadCredentialsError
        if record.has_initial_password:
            return self._first_log_in(record, stored, new_password, on_success)
        if new_password:
            raise InvalidArgumentError(
                "new_password",
                "`new_password` is for initial passwords only. Log in without it, then change the "
                "password.",
            )
        rehashed = self._passwords.hash(password) if self._passwords.needs_rehash(stored) else None
        if on_success is None and rehashed is None:
            return record.account
        uid = record.account.uid
        with self._database.write() as connection:
            # Without a rehash this stores the same hash, and checks that it is still in force.
            if records.swap_password(connection, uid, old=stored, new=rehashed or stored):
                account = records.known(records.find_by_uid(connection, uid)).account
                if on_success is not None:
                    on_success(connection, account)
                return account
        # The hash has changed meanwhile: a new password, or a log-in that rehashed the same one.
        return self.log_in(user_name, password, on_success=on_success)

    def _first_log_in(
        self,
        record: Record,
        stored: str,
        new_password: str,
        on_success: Callable[[Connection, Account], None] | None,
    ) -> Account:
        if not new_password:
            raise PasswordChangeRequiredError(
                "The password works for one log-in only. Send `new_password` with it."
            )
        password_hash = self._passwords.hash(new_password)
        uid = record.account.uid
        with self._database.write() as connection:
            account = self._replace_password(connection, uid, stored, password_hash)
            if account is None:
                raise BadCredentialsError
            self._end_sessions(connection, uid, None)
            if on_success is not None:
                on_success(connection, account)
            return account

    def _replace_password(
        self, connection: Connection, uid: str, old: str, new: str
    ) -> Account | None:
        """Return the changed account; None where the old hash is no longer in force."""
        if not records.swap_password(connection, uid, old=old, new=new):
            return None
        account = self._mint.touched(records.known(records.find_by_uid(connection, uid)).account)
        records.change(connection, account)
        return account

    def _find(self, user_name: str) -> Record | None:
        if not rules.is_user_name(user_name):
            return None
        with self._database.read() as connection:
            return records.find(connection, user_name)


def _usable(record: Record | None, *, now: float = 0.0) -> str | None:
    """Return the hash that a log-in may match now; None where the user cannot log in."""
    if record is None or record.account.state is not AccountState.ACTIVE:
        return None
    expires_at = record.password_expires_at
    return None if expires_at is not None and expires_at <= now else record.password_hash


def _wrong_password() -> PermissionDeniedError:
    return PermissionDeniedError("`current_password` is wrong.")
