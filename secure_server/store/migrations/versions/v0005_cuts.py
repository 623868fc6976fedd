"""Ending many sessions by one line of the feed, and indexes to find them by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"


def upgrade() -> None:
    op.add_column("revocations", sa.Column("except_session", sa.String(36)))
    op.drop_index("ix_sessions_user_uid", "sessions")
    for column in ("user_uid", "spiffe_id"):
        op.create_index(f"ix_sessions_{column}", "sessions", [column, "expire_time", "create_time"])
