"""Accounts: the rules for users and passwords."""

from secure_server.users.account import ADMIN, Account, State
from secure_server.users.accounts import Accounts
from secure_server.users.changes import Change, Changes, Kind
from secure_server.users.errors import UserError
from secure_server.users.passwords import Passwords

__all__ = [
    "ADMIN",
    "Account",
    "Accounts",
    "Change",
    "Changes",
    "Kind",
    "Passwords",
    "State",
    "UserError",
]
