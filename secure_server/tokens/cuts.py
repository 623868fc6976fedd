"""Cuts: revocations of everything issued to a user or a client until then, sessions included.

A cut is one line of the feed. It may end more sessions than one short transaction can delete. Until
``Sweeper`` has deleted them, every query for sessions leaves out those that a cut has ended.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, func, literal, select

from secure_server.store.schema import revocations, sessions, users
from secure_server.tokens.revoked import UNNAMED, RevocationKind

__all__ = ["SUBJECT", "cut_until", "ended_by", "is_cut"]

SUBJECT = "users/"
"""What the claim ``sub`` of a user begins with; the user name follows."""


def is_cut(issuer: str) -> ColumnElement[bool]:
    """A condition: a cut has ended the session, and ``Sweeper`` has yet to delete it."""
    c, cut = sessions.c, revocations.c
    # `correlate` is needed: SQLAlchemy does not see the sessions through the exists() between.
    owner = select(users.c.name).where(users.c.uid == c.user_uid).correlate(sessions)
    common = (
        cut.issuer.in_((issuer, UNNAMED)),
        cut.issued_until + 1 > c.create_time,
    )
    of_client = exists().where(
        cut.kind == RevocationKind.CLIENT.value, cut.value == c.spiffe_id, *common
    )
    of_user = exists().where(
        cut.kind == RevocationKind.USER.value,
        cut.value == literal(SUBJECT) + owner.scalar_subquery(),
        func.coalesce(cut.except_session, "") != c.session_id,
        *common,
    )
    return of_client | of_user


def cut_until(connection: Connection, issuer: str, name: str, spiffe_id: str) -> float:
    """Return until when cuts have ended the sessions of a user or a client; -1 without a cut."""
    cut = revocations.c
    user = (cut.kind == RevocationKind.USER.value) & (cut.value == SUBJECT + name)
    client = (cut.kind == RevocationKind.CLIENT.value) & (cut.value == spiffe_id)
    ours = cut.issuer.in_((issuer, UNNAMED))
    query = select(func.max(cut.issued_until)).where(ours, user | client)
    until = connection.scalar(query)
    return -1.0 if until is None else until


def ended_by(cut: Row[*tuple[Any, ...]]) -> list[ColumnElement[bool]]:
    """Which sessions a line of the feed has ended, as conditions that must all hold."""
    c = sessions.c
    ended = [c.create_time < cut.issued_until + 1]
    if cut.kind == RevocationKind.CLIENT:
        return [*ended, c.spiffe_id == cut.value]
    name = cut.value.removeprefix(SUBJECT)
    owner = select(users.c.uid).where(users.c.name == name).scalar_subquery()
    return [*ended, c.user_uid == owner, c.session_id != func.coalesce(cut.except_session, "")]
