"""Run by Alembic: connects as told by `recstore.migrate`, keeps the version table in recstore's own schema; or tells the SQL."""

from alembic import context
from sqlalchemy import Connection, text

from recstore.tables import PRIVATE_SCHEMA, metadata


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return name in (PRIVATE_SCHEMA, "recstore") if kind == "schema" else True


def run(connection: Connection) -> None:
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {PRIVATE_SCHEMA}"))
    connection.dialect.supports_comments = False  # comments are the SQL's own, not compared
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table_schema=PRIVATE_SCHEMA,
        include_schemas=True,
        include_name=_ours,
        compare_server_default=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def tell() -> None:
    """Prints the SQL."""
    context.configure(dialect_name="postgresql", version_table_schema=PRIVATE_SCHEMA, transaction_per_migration=False)
    with context.begin_transaction():
        context.get_context().impl.static_output(f"CREATE SCHEMA IF NOT EXISTS {PRIVATE_SCHEMA};")
        context.run_migrations()


if context.is_offline_mode():
    tell()
else:
    run(context.config.attributes["connection"])
