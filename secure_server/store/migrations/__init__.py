"""Alembic's scripts, which `secure_server.store.migrate` runs."""
