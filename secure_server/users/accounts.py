"""Accounts: created, changed and deleted."""

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
    InvalidArgumentError,
    LastAdministratorError,
)
from secure_server.users.password_rules import check_new_password
from secure_server.users.passwords import Passwords

__all__ = ["INITIAL_PASSWORD_SECONDS", "Accounts", "EndSessions"]

EndSessions = Callable[[Connection, str, str | None], int]
"""Ends the sessions of a user, by ``uid``, except one, in a transaction; returns how many."""


class Accounts:
    """Creates, reads, changes and deletes users by the rules of ``user_service.proto``.

    Passwords are hashed before a transaction, never inside. Every method raises ``StoreError``
    where the database fails; names are user names, without ``users/``.
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

        ``end_sessions`` is called in the transaction that disables or deletes a user or changes its
        roles.
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

        ``password`` is an initial one: it works for one log-in within 7 days, which replaces it.
        For a day, the same ``request_id`` of the same ``caller`` with the same body returns the
        first answer again (AIP-155).

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
        """Give requests that an older version stored without an issuer to the callers of
        ``issuer``.
        """
        with self._database.write() as connection:
            requests.adopt(connection, issuer)

    def get(self, name: str) -> Account:
        """Return the user of that name. Raises ``NotFoundError``."""
        with self._database.read() as connection:
            return records.known(records.find(connection, name)).account

    def get_by_uid(self, uid: str) -> Account:
        """Return the user of that ``uid``. Raises ``NotFoundError``."""
        with self._database.read() as connection:
            return records.known(records.find_by_uid(connection, uid)).account

    def list(self, after_name: str, limit: int) -> Sequence[Account]:
        """Return up to ``limit`` users whose names come after ``after_name``, sorted by name."""
        with self._database.read() as connection:
            return records.page(connection, after_name, limit)

    def update(self, name: str, changes: Mapping[str, object], etag: str = "") -> Account:
        """Change ``email``, ``display_name``, ``roles`` or ``state`` (AIP-134).

        Disabling the user or changing its roles ends its sessions. A change to the present values
        stores nothing and keeps the etag.

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
                # All sessions are ended now, but many are deleted in several transactions.
                if not records.has_sessions(connection, account.uid):
                    records.remove(connection, account, self._clock())
                    return

    def bootstrap(self, user_id: str, secret: str) -> Account:
        """Create the first administrator, whose initial password is ``secret``.

        Calling it again for the same user replaces the secret while it is unused and there is no
        other administrator. So an operator who lost the secret needs no new database, and no user
        can have logged in with it. Expired secrets can be replaced in the same way.

        Raises ``AlreadyBootstrappedError``, ``AlreadyExistsError`` (a user of that name is no
        administrator) and ``InvalidArgumentError``.
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
                    "There is an administrator already. Ask the administrator for an account."
                )
            after = self._mint.touched(present.account)
            records.set_initial_password(connection, self._mint.record(after, password_hash))
            records.change(connection, after)
            return after

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
                "request_id", "`request_id` was used for another request. Generate a new UUID."
            )
        return earlier.result


def _current(connection: Connection, name: str, etag: str) -> Account:
    account = records.known(records.find(connection, name)).account
    if etag and etag != account.etag:
        raise AbortedError("`etag` is stale: the user was changed. Get it and try again.")
    return account


def _check_not_last_admin(connection: Connection, account: Account) -> None:
    if not records.has_other_active_admin(connection, account.uid):
        raise LastAdministratorError(
            "This is the last active administrator. Give another user the role `admin` first."
        )


def _taken(name: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"The user name {name!r} is taken. Choose another `user_id`.")
