"""The tables. Migrations create them; a test checks that both agree.

Times are in seconds since the epoch. Passwords and refresh tokens are stored only as hashes.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)

__all__ = ["metadata", "requests", "revocations", "sessions", "settings", "user_changes", "users"]

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("uid", String(36), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("email", String(254), nullable=False),
    Column("display_name", String(128), nullable=False),
    Column("roles", JSON, nullable=False),
    # Derived from `roles`, to look for other administrators without reading every user.
    Column("is_admin", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("create_time", Float, nullable=False),
    Column("update_time", Float, nullable=False),
    Column("etag", String(32), nullable=False),
    # A PHC string; null where the user cannot log in.
    Column("password_hash", String(255)),
    # Set while the password is an initial one, which works once and until this time.
    Column("password_expire_time", Float),
    UniqueConstraint("name", name="uq_users_name"),
    Index("ix_users_is_admin", "is_admin"),
)

# A numbered feed. The number is given under the write lock, so the order of the numbers is the
# order of the commits. AUTOINCREMENT never gives a number twice, even after pruning.
user_changes = Table(
    "user_changes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    # The user as the change left it.
    Column("account", JSON, nullable=False),
    sqlite_autoincrement=True,
)

# One row per family of refresh tokens. The row of a session that has ended is deleted, that of one
# that has expired is kept until its last access token has expired too.
sessions = Table(
    "sessions",
    metadata,
    Column("session_id", String(36), primary_key=True),
    Column(
        "user_uid", String(36), ForeignKey("users.uid", name="fk_sessions_user"), nullable=False
    ),
    Column("spiffe_id", String(2048), nullable=False),
    # SHA-256 of the part that every token of the family shares, and of the one valid token.
    Column("family_hash", LargeBinary(32), nullable=False),
    Column("token_hash", LargeBinary(32), nullable=False),
    # The salt that the valid token was derived with; null before the first refresh.
    Column("salt", LargeBinary(16)),
    Column("create_time", Float, nullable=False),
    # The idle limit, and the absolute limit, which is never earlier.
    Column("expire_time", Float, nullable=False),
    Column("end_time", Float, nullable=False),
    # The last refresh; null before the first.
    Column("last_use_time", Float),
    UniqueConstraint("family_hash", name="uq_sessions_family_hash"),
    # To count live sessions, and to find those that a cut has ended.
    Index("ix_sessions_user_uid", "user_uid", "expire_time", "create_time"),
    Index("ix_sessions_spiffe_id", "spiffe_id", "expire_time", "create_time"),
    Index("ix_sessions_expire_time", "expire_time"),
)

# A numbered feed like `user_changes`.
revocations = Table(
    "revocations",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    # The issuer of the token, session, user or client. Empty in rows from before migration 0004, or
    # of a process of an older version that has the database open too.
    Column("issuer", String(2048), nullable=False, server_default=""),
    Column("kind", String(16), nullable=False),
    Column("value", String(2048), nullable=False),
    Column("expire_time", Float, nullable=False),
    # For a user or a client: tokens issued up to this whole second are revoked. Null for a token or
    # a session.
    Column("issued_until", Float),
    # The one session of the user that is not revoked.
    Column("except_session", String(36)),
    UniqueConstraint("issuer", "kind", "value", name="uq_revocations_issuer_kind_value"),
    Index("ix_revocations_expire_time", "expire_time"),
    sqlite_autoincrement=True,
)

# Requests that a client may send again (AIP-155).
requests = Table(
    "requests",
    metadata,
    # Issuer and subject of the caller; the issuer may be empty as in `revocations`.
    Column("issuer", String(2048), nullable=False, server_default=""),
    Column("caller", String(512), nullable=False),
    Column("request_id", String(36), nullable=False),
    # SHA-256 of the body without its password, whose Argon2id hash stands beside it.
    Column("digest", LargeBinary(32), nullable=False),
    Column("password_hash", String(255)),
    Column("result", JSON, nullable=False),
    Column("create_time", Float, nullable=False),
    PrimaryKeyConstraint("issuer", "caller", "request_id", name="pk_requests"),
    Index("ix_requests_create_time", "create_time"),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
