"""Users: their accounts, log-ins and passwords, and the feed of changes."""

from secure_server.users.account import ADMIN, Account, AccountState
from secure_server.users.accounts import Accounts
from secure_server.users.changes import Change, ChangeKind, Changes
from secure_server.users.errors import UserError
from secure_server.users.logins import Logins
from secure_server.users.passwords import Passwords

__all__ = [
    "ADMIN",
    "Account",
    "AccountState",
    "Accounts",
    "Change",
    "ChangeKind",
    "Changes",
    "Logins",
    "Passwords",
    "UserError",
]
