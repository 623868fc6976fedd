"""The database: tables, transactions, migrations and notices of commits."""

from secure_server.store.database import Database
from secure_server.store.errors import StoreError, StoreUnavailableError, StoreUnusableError

__all__ = ["Database", "StoreError", "StoreUnavailableError", "StoreUnusableError"]
