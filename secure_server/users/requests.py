"""Requests that are safe to send again (AIP-155)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, select, update

from secure_server.auth.identity import Identity
from secure_server.store.schema import requests
from secure_server.users.account import Account

__all__ = ["KEPT_SECONDS", "Remembered", "adopt", "digest", "find", "remember"]

KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a request was and what it gave.

    The digest does not cover the password: a fast hash of it, keyed or not, could be tried out by
    whoever has the database. Its Argon2id hash, which stands in the database anyway, can answer
    whether a repetition brings the same one.
    """

    digest: bytes
    password_hash: str | None = field(repr=False)
    result: Account


def digest(*parts: str | bool | Sequence[str]) -> bytes:
    """SHA-256 over the parts of a body; equal for equal bodies only."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def find(
    connection: Connection, caller: Identity, request_id: str, *, now: float
) -> Remembered | None:
    """What the same caller has sent under this ID before."""
    row = connection.execute(
        select(requests).where(
            requests.c.issuer == caller.issuer,
            requests.c.caller == caller.subject,
            requests.c.request_id == request_id,
            requests.c.create_time > now - KEPT_SECONDS,
        )
    ).one_or_none()
    if row is None:
        return None
    return Remembered(row.digest, row.password_hash, Account.from_json(row.result))


def remember(
    connection: Connection, caller: Identity, request_id: str, request: Remembered, *, now: float
) -> None:
    """Keep it for a day, and forget those that were kept for one."""
    connection.execute(delete(requests).where(requests.c.create_time <= now - KEPT_SECONDS))
    connection.execute(
        insert(requests).values(
            issuer=caller.issuer,
            caller=caller.subject,
            request_id=request_id,
            digest=request.digest,
            password_hash=request.password_hash,
            result=request.result.to_json(),
            create_time=now,
        )
    )


def adopt(connection: Connection, issuer: str) -> None:
    """Take the requests of which no issuer was written down, before 0004, to be of ours: they were
    nearly all, and another issuer's caller does not get the answer of ours.
    """
    unnamed = update(requests).where(requests.c.issuer == "").values(issuer=issuer)
    # One that ours has sent again since, to a newer process, has its answer already.
    connection.execute(unnamed.prefix_with("OR IGNORE", dialect="sqlite"))
