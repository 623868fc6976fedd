"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None


def upgrade() -> None:
    _users()
    _tokens()
    op.create_table(
        "requests",
        sa.Column("caller", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("password_hash", sa.String(255)),
        sa.Column("result", sa.JSON, nullable=False),
        sa.Column("create_time", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("caller", "request_id", name="pk_requests"),
    )
    op.create_index("ix_requests_create_time", "requests", ["create_time"])
    op.create_table(
        "settings",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("uid", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("display_name", sa.String(128), nullable=False),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("is_admin", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("create_time", sa.Float, nullable=False),
        sa.Column("update_time", sa.Float, nullable=False),
        sa.Column("etag", sa.String(32), nullable=False),
        sa.Column("password_hash", sa.String(255)),
        sa.Column("password_expire_time", sa.Float),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    op.create_index("ix_users_is_admin", "users", ["is_admin"])
    op.create_table(
        "user_changes",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("account", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )


def _tokens() -> None:
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.String(36), primary_key=True),
        sa.Column(
            "user_uid",
            sa.String(36),
            sa.ForeignKey("users.uid", name="fk_sessions_user"),
            nullable=False,
        ),
        sa.Column("spiffe_id", sa.String(2048), nullable=False),
        sa.Column("family_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("create_time", sa.Float, nullable=False),
        sa.Column("expire_time", sa.Float, nullable=False),
        sa.Column("end_time", sa.Float, nullable=False),
        sa.UniqueConstraint("family_hash", name="uq_sessions_family_hash"),
    )
    op.create_index("ix_sessions_user_uid", "sessions", ["user_uid"])
    op.create_index("ix_sessions_expire_time", "sessions", ["expire_time"])
    op.create_table(
        "revocations",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.Column("expire_time", sa.Float, nullable=False),
        sa.UniqueConstraint("kind", "value", name="uq_revocations_kind_value"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_revocations_expire_time", "revocations", ["expire_time"])
