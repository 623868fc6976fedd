"""Run by Alembic for every command; the connection and its transaction belong to the caller."""

from alembic import context

from secure_server.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite rolls back DDL too, as long as the driver begins no transactions by itself.
    transactional_ddl=True,
    # SQLite can alter little in place; Alembic copies the table where it must.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
