"""Accounts: made, changed, deleted, and opened by a password."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from secure_server.auth.identity import Identity
from secure_server.auth.principal import ANONYMOUS
from secure_server.store.database import Database
from secure_server.users import records, requests, rules
from secure_server.users.account import ADMIN, Account, AccountState
from secure_server.users.account_factory import INITIAL_PASSWORD_SECONDS, AccountFactory
from secure_server.users.errors import (
    AbortedError,
    AlreadyBootstrappedError,
    AlreadyExistsError,
    BadCredentialsError,
    InvalidArgumentError,
    LastAdministratorError,
    NotFoundError,
    PasswordChangeRequiredError,
    PermissionDeniedError,
)
from secure_server.users.password_rules import (
    check_new_password,
    check_replacement,
    encode_password,
)
from secure_server.users.passwords import Passwords
from secure_server.users.records import Record

__all__ = ["INITIAL_PASSWORD_SECONDS", "Accounts", "EndSessions"]

EndSessions = Callable[[Connection, str, str | None], int]
"""Ends the sessions of a user's uid, except one, in the given transaction; says how many."""


class Accounts:
    """The rules for users over the store.

    Passwords are hashed before a transaction, never inside: what the hash was computed for is
    checked again where it is written. Every method raises ``StoreError`` where the database
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
        """``clock`` gives seconds since the epoch.

        ``end_sessions`` is called in the transaction that disables or deletes a user, changes its
        roles or its password.
        """
        self._database = database
        self._passwords = passwords
        self._clock = clock
        self._end_sessions = end_sessions
        self._mint = AccountFactory(clock, random_bytes)

    def create(
        self,
        user_id: str,
        *,
        email: str = "",
        display_name: str = "",
        roles: Collection[str] = (),
        state: str = AccountState.ACTIVE,
        password: str | None = None,
        request_id: str = "",
        caller: Identity = ANONYMOUS.identity,
    ) -> Account:
        """Create a user (AIP-133).

        ``password`` is an initial one: good for one log-in, which replaces it, within 7 days.
        The same ``request_id`` of the same ``caller`` with the same body gives for a day the
        answer that was given first (AIP-155).

        Raises ``InvalidArgumentError`` (also another body under the same ``request_id``),
        ``AlreadyExistsError`` and ``OverloadedError``.
        """
        name = rules.check_user_name(user_id)
        account = self._mint.account(
            name,
            email=rules.check_email(email),
            display_name=rules.check_display_name(display_name),
            roles=rules.check_roles(roles),
            state=rules.check_state(state),
        )
        if password is not None:
            check_new_password(password, user_name=name)
        request_id = rules.check_request_id(request_id)
        digest = requests.digest(
            name, email, display_name, account.roles, account.state.value, password is not None
        )

        with self._database.read() as connection:
            earlier = self._earlier(connection, caller, request_id)
            taken = records.find(connection, name) is not None
        if earlier is not None:
            return self._repeat(earlier, digest, password)
        if taken:
            raise _taken(name)
        password_hash = None if password is None else self._passwords.hash(password)
        with self._database.write() as connection:
            earlier = self._earlier(connection, caller, request_id)
            if earlier is None:
                if records.find(connection, name) is not None:
                    raise _taken(name)
                records.add(connection, self._mint.record(account, password_hash))
                if request_id:
                    remembered = requests.Remembered(digest, password_hash, account)
                    requests.remember(
                        connection, caller, request_id, remembered, now=account.create_time
                    )
                return account
        return self._repeat(earlier, digest, password)

    def adopt_requests(self, issuer: str) -> None:
        """Say whose callers' requests those are that name no issuer: an older version kept them."""
        with self._database.write() as connection:
            requests.adopt(connection, issuer)

    def get(self, name: str) -> Account:
        """Raises ``NotFoundError``."""
        with self._database.read() as connection:
            return _known(records.find(connection, name)).account

    def get_by_uid(self, uid: str) -> Account:
        """Raises ``NotFoundError``."""
        with self._database.read() as connection:
            return _known(records.find_by_uid(connection, uid)).account

    def list(self, after_name: str, limit: int) -> Sequence[Account]:
        """Up to ``limit`` users whose names come after ``after_name``, sorted by name."""
        with self._database.read() as connection:
            return records.page(connection, after_name, limit)

    def update(self, name: str, changes: Mapping[str, object], etag: str = "") -> Account:
        """Change ``email``, ``display_name``, ``roles`` or ``state`` (AIP-134).

        Disabling the user or changing its roles ends its sessions. Where nothing differs nothing
        happens, and the etag stays.

        Raises ``NotFoundError``, ``InvalidArgumentError``, ``AbortedError`` (stale etag) and
        ``LastAdministratorError``.
        """
        checked = rules.check_changes(changes)
        with self._database.write() as connection:
            before = _current(connection, name, etag)
            wanted: Account = replace(before, **checked)
            if wanted == before:
                return before
            if before.is_active_admin and not wanted.is_active_admin:
                _check_not_last_admin(connection, before)
            after = self._mint.touched(wanted)
            records.change(connection, after)
            if after.roles != before.roles or after.state is AccountState.DISABLED:
                self._end_sessions(connection, after.uid, None)
            return after

    def delete(self, name: str, etag: str = "") -> None:
        """Delete a user for good and end its sessions (AIP-135).

        Raises ``NotFoundError``, ``AbortedError`` (stale etag) and ``LastAdministratorError``.
        """
        while True:
            with self._database.write() as connection:
                account = _current(connection, name, etag)
                if account.is_active_admin:
                    _check_not_last_admin(connection, account)
                self._end_sessions(connection, account.uid, None)
                # All are ended. Where they are many, they are deleted in several transactions.
                if not records.has_sessions(connection, account.uid):
                    records.remove(connection, account, self._clock())
                    return

    def change_password(
        self, name: str, current: str, new: str, *, keep_session: str | None = None
    ) -> int:
        """Replace a password by its owner; returns how many other sessions were ended.

        Raises ``InvalidArgumentError`` (the new one breaks a rule), ``PermissionDeniedError`` (the
        current one is wrong; an initial one is for ``log_in`` only) and ``OverloadedError``.
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
        """The user whose password this is.

        ``new_password`` is for initial passwords only, which it replaces; of several log-ins at
        once with one initial password a single one succeeds. ``on_success`` runs in the
        transaction that confirms the password: what it stores, such as a session, cannot outlive
        a change of the password or of the user's state that happens meanwhile.

        Raises ``BadCredentialsError``, the same after the same work for an unknown user, a wrong
        password, a disabled user and an expired initial password; ``PasswordChangeRequiredError``
        (a right initial password alone), ``InvalidArgumentError`` and ``OverloadedError``.
        """
        encode_password(password)
        if new_password:
            # These rules look at the request alone, so to answer first gives nothing away.
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
            # The same hash again where it is a good one: this still asks whether it is in force.
            if records.swap_password(connection, uid, old=stored, new=rehashed or stored):
                account = _known(records.find_by_uid(connection, uid)).account
                if on_success is not None:
                    on_success(connection, account)
                return account
        # Somebody was faster: a new password, or only a log-in that rehashed the same one.
        return self.log_in(user_name, password, on_success=on_success)

    def bootstrap(self, user_id: str, secret: str) -> Account:
        """Create the first administrator, whose initial password is ``secret``.

        Calling it again for the same user replaces the secret as long as it is unused and there
        is no other administrator: whoever lost it needs no new database, and nobody can have
        logged in. Expired secrets can be replaced in the same way.

        Raises ``AlreadyBootstrappedError``, ``AlreadyExistsError`` (the name belongs to somebody
        who is no administrator) and ``InvalidArgumentError``.
        """
        name = rules.check_user_name(user_id)
        check_new_password(secret, user_name=name, field="secret")
        password_hash = self._passwords.hash(secret)
        account = self._mint.account(
            name, email="", display_name="", roles=(ADMIN,), state=AccountState.ACTIVE
        )
        with self._database.write() as connection:
            present = records.find(connection, name)
            admins = records.count_admins(connection)
            if admins == 0:
                if present is not None:
                    raise _taken(name)
                records.add(connection, self._mint.record(account, password_hash))
                return account
            if (
                admins > 1
                or present is None
                or not present.account.is_active_admin
                or not present.has_initial_password
            ):
                raise AlreadyBootstrappedError(
                    "There is an administrator already. Ask for an account there."
                )
            after = self._mint.touched(present.account)
            records.set_initial_password(connection, self._mint.record(after, password_hash))
            records.change(connection, after)
            return after

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
        """The account afterwards; None where the old hash is not in force any more."""
        if not records.swap_password(connection, uid, old=old, new=new):
            return None
        account = self._mint.touched(_known(records.find_by_uid(connection, uid)).account)
        records.change(connection, account)
        return account

    def _find(self, user_name: str) -> Record | None:
        if not rules.is_user_name(user_name):
            return None
        with self._database.read() as connection:
            return records.find(connection, user_name)

    def _earlier(
        self, connection: Connection, caller: Identity, request_id: str
    ) -> requests.Remembered | None:
        if not request_id:
            return None
        return requests.find(connection, caller, request_id, now=self._clock())

    def _repeat(self, earlier: requests.Remembered, digest: bytes, password: str | None) -> Account:
        same = earlier.digest == digest
        if same and password is not None:
            same = self._passwords.verify(earlier.password_hash, password)
        if not same:
            raise InvalidArgumentError(
                "request_id", "`request_id` was used for another request. Make a new UUID."
            )
        return earlier.result


def _usable(record: Record | None, *, now: float = 0.0) -> str | None:
    """The hash that may open the account now."""
    if record is None or record.account.state is not AccountState.ACTIVE:
        return None
    expires_at = record.password_expires_at
    return None if expires_at is not None and expires_at <= now else record.password_hash


def _known(record: Record | None) -> Record:
    if record is None:
        raise NotFoundError("There is no such user.")
    return record


def _current(connection: Connection, name: str, etag: str) -> Account:
    account = _known(records.find(connection, name)).account
    if etag and etag != account.etag:
        raise AbortedError("`etag` is stale: the user was changed. Get it and try again.")
    return account


def _check_not_last_admin(connection: Connection, account: Account) -> None:
    if not records.has_other_active_admin(connection, account.uid):
        raise LastAdministratorError(
            "This is the last active administrator. Make another user one first."
        )


def _taken(name: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"The user name {name!r} is taken. Choose another `user_id`.")


def _wrong_password() -> PermissionDeniedError:
    return PermissionDeniedError("`current_password` is wrong.")
