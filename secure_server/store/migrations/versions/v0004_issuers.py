"""An issuer for each row of revocations and requests.

Migrations do not read the configuration, so the issuer of existing rows stays empty. Readers of the
rows interpret that: sessions, users and clients have always been those of this server; a token may
have been any issuer's and was refused of every issuer, so it is until the row expires. No
revocation is undone.
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
    # Alembic copies the table for this, and does not copy AUTOINCREMENT.
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
        # The copy starts after the highest number that it has; numbers of deleted rows must not be
        # given again.
        connection.execute(sa.delete(numbers).where(mine))
        connection.execute(sa.insert(numbers).values(name="revocations", seq=given))
    # A log-out without a token wrote a row without a value. It revoked no credential of the caller,
    # and refused all other callers whose credentials have no ID.
    rows = sa.table("revocations", sa.column("value"))
    connection.execute(sa.delete(rows).where(rows.c.value == ""))
