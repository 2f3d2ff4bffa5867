"""Who may watch and ask: rights on recstore's own views and functions. Those on a recommender are `registry.grant_reader`."""

from recstore.errors import InvalidInput
from recstore.postgres.connection import Connection, plain_errors
from recstore.postgres.names import quoted

REQUESTS = (
    "recstore.request_retrain(text), recstore.request_retrain(text, boolean), recstore.request_reindex(text),"
    " recstore.request_lists(text), recstore.cancel_request(bigint)"
)
"""What a role calls to ask the workers; they run with their owner's rights."""


def grant_watcher(connection: Connection, role: str, *, requests: bool = True, dry: bool = False) -> list[str]:
    """Lets a role watch all recommenders, and with `requests` ask the workers for jobs; without takes the latter back.
    Returns the statements that it ran, or with `dry` would run. Raises InvalidInput for an unknown role."""
    asking = "GRANT EXECUTE ON FUNCTION {} TO {};" if requests else "REVOKE EXECUTE ON FUNCTION {} FROM {};"
    return _run_for(
        connection,
        role,
        dry,
        "GRANT USAGE ON SCHEMA recstore TO {role};",
        "GRANT SELECT ON ALL TABLES IN SCHEMA recstore TO {role};",
        asking.format(REQUESTS, "{role}"),
    )


def revoke_watcher(connection: Connection, role: str, *, dry: bool = False) -> list[str]:
    """Takes back what `grant_watcher` gave; returns and raises as that does."""
    return _run_for(
        connection,
        role,
        dry,
        f"REVOKE EXECUTE ON FUNCTION {REQUESTS} FROM {{role}};",
        "REVOKE SELECT ON ALL TABLES IN SCHEMA recstore FROM {role};",
        "REVOKE USAGE ON SCHEMA recstore FROM {role};",
    )


def _run_for(connection: Connection, role: str, dry: bool, *templates: str) -> list[str]:
    """Runs the statements in one transaction, unless it is a dry run."""
    statements = [template.format(role=quoted(role)) for template in templates]
    check_role(connection, role)
    with plain_errors(f"changing the rights of {role!r}", connection), connection.transaction():
        for statement in [] if dry else statements:
            connection.execute(statement)
    return statements


def check_role(connection: Connection, role: str) -> None:
    """Raises InvalidInput unless there is a role of that name."""
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
        raise InvalidInput(f"There is no role named {role!r}.")
