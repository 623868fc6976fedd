"""Revocations of users and clients, and when a session was used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("last_use_time", sa.Float))
    _widen_revocations()


def _widen_revocations() -> None:
    connection = op.get_bind()
    numbers = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))
    mine = numbers.c.name == "revocations"
    given = connection.scalar(sa.select(numbers.c.seq).where(mine))
    # Alembic copies the table for this, and does not copy AUTOINCREMENT.
    with op.batch_alter_table(
        "revocations", table_kwargs={"sqlite_autoincrement": True}
    ) as revocations:
        revocations.add_column(sa.Column("issued_until", sa.Float))
        revocations.alter_column(
            "value", existing_type=sa.String(255), type_=sa.String(2048), existing_nullable=False
        )
    if given is not None:
        # The copy starts after the highest number that it has; numbers of deleted rows must not be
        # given again.
        connection.execute(sa.delete(numbers).where(mine))
        connection.execute(sa.insert(numbers).values(name="revocations", seq=given))
