"""Entry point of Alembic: runs the migrations on the connection it was handed, or prints their SQL."""

from alembic import context
from sqlalchemy import Connection, text

SCHEMA = "recstore_private"
"""Schema of the version table and of recstore's own tables."""


def run(connection: Connection) -> None:
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    context.configure(connection=connection, version_table_schema=SCHEMA, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()


def print_sql() -> None:
    context.configure(dialect_name="postgresql", version_table_schema=SCHEMA, transaction_per_migration=False)
    with context.begin_transaction():
        context.get_context().impl.static_output(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA};")
        context.run_migrations()


if context.is_offline_mode():
    print_sql()
else:
    run(context.config.attributes["connection"])
