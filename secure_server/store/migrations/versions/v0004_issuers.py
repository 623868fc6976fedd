"""Whose tokens, sessions, users and requests they are: each row names its issuer.

The scripts know no configuration, so the issuer of the rows that are there stays empty. What that
means, those who read them say: sessions, users and clients were ours at all times; a token may have
been any issuer's, and was refused of every one, so it goes on being refused of every one until the
row expires. Nothing that was revoked is good again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    _name_issuers_of_revocations()
    with op.batch_alter_table("requests") as requests:
        requests.add_column(sa.Column("issuer", sa.String(2048), nullable=False, server_default=""))
        requests.alter_column(
            "caller", existing_type=sa.String(255), type_=sa.String(512), existing_nullable=False
        )
        requests.drop_constraint("pk_requests", type_="primary")
        requests.create_primary_key("pk_requests", ["issuer", "caller", "request_id"])


def _name_issuers_of_revocations() -> None:
    connection = op.get_bind()
    numbers = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))
    mine = numbers.c.name == "revocations"
    given = connection.scalar(sa.select(numbers.c.seq).where(mine))
    # SQLite copies the table for this; AUTOINCREMENT must be said again.
    with op.batch_alter_table(
        "revocations", table_kwargs={"sqlite_autoincrement": True}
    ) as revocations:
        revocations.add_column(
            sa.Column("issuer", sa.String(2048), nullable=False, server_default="")
        )
        revocations.drop_constraint("uq_revocations_kind_value", type_="unique")
        revocations.create_unique_constraint(
            "uq_revocations_issuer_kind_value", ["issuer", "kind", "value"]
        )
    if given is not None:
        # The copy knows only of numbers that are still there: none may be given twice.
        connection.execute(sa.delete(numbers).where(mine))
        connection.execute(sa.insert(numbers).values(name="revocations", seq=given))
    # Logging out without a token wrote a row without a name. It revoked nothing of the caller's,
    # and refused everybody else whose credentials have no ID.
    rows = sa.table("revocations", sa.column("value"))
    connection.execute(sa.delete(rows).where(rows.c.value == ""))
