"""Secrets of the installation, which all its processes share."""

from __future__ import annotations

import os
from collections.abc import Callable

from sqlalchemy import insert, select

from secure_server.store.database import Database
from secure_server.store.schema import settings

__all__ = ["secret_key"]


def secret_key(
    database: Database, name: str, *, random_bytes: Callable[[int], bytes] = os.urandom
) -> bytes:
    """Return the 32 random bytes stored under ``name``; the first call generates them.

    Use it for keys that are worthless without the database, such as the key that binds page tokens
    to their caller. Raises ``StoreError``.
    """
    query = select(settings.c.value).where(settings.c.name == name)
    with database.read() as connection:
        value: bytes | None = connection.scalar(query)
    if value is None:
        with database.write() as connection:
            value = connection.scalar(query)
            if value is None:
                value = random_bytes(32)
                connection.execute(insert(settings).values(name=name, value=value))
    return value
