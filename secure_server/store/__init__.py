"""What is remembered: tables, transactions, migrations and the notice of a commit."""

from secure_server.store.database import Database
from secure_server.store.errors import StoreError, StoreUnavailableError, StoreUnusableError

__all__ = ["Database", "StoreError", "StoreUnavailableError", "StoreUnusableError"]
