"""Requests that a client may send again with the same ID (AIP-155)."""

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
    """A request and its result.

    The digest does not cover the password: a thief of the database could try passwords against a
    fast hash, keyed or not. Whether a repetition has the same password is checked with its Argon2id
    hash, which the database has anyway.
    """

    digest: bytes
    password_hash: str | None = field(repr=False)
    result: Account


def digest(*parts: str | bool | Sequence[str]) -> bytes:
    """Return the SHA-256 of the parts of a body, which is equal for equal bodies only."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def find(
    connection: Connection, caller: Identity, request_id: str, *, now: float
) -> Remembered | None:
    """Return the earlier request of the same caller under this ID; None without one."""
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
    """Store a request for a day, and delete those that are a day old."""
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
    """Give requests without an issuer, stored before migration 0004, to the callers of ``issuer``.

    Nearly all were sent by them, and no caller of another issuer gets their answers.
    """
    unnamed = update(requests).where(requests.c.issuer == "").values(issuer=issuer)
    # A request that its caller has sent again since, to a newer process, has a row with the issuer.
    connection.execute(unnamed.prefix_with("OR IGNORE", dialect="sqlite"))
