"""The salt of a refresh token, for refreshes that are repeated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("salt", sa.LargeBinary(16)))
