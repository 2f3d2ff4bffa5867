"""Grant and revoke rights on recstore's own views and functions. `operations/readers.py` grants those on a recommender."""

from recstore.errors import InvalidInput
from recstore.postgres.connection import Connection, plain_errors
from recstore.postgres.names import quoted

REQUESTS = (
    "recstore.request_retrain(text), recstore.request_retrain(text, boolean), recstore.request_reindex(text),"
    " recstore.request_refresh(text), recstore.request_lists(text), recstore.cancel_request(bigint), recstore.cancel_run(bigint)"
)
"""Functions that ask the workers for jobs, with their owner's rights."""


def grant_watcher(connection: Connection, role: str, *, requests: bool = True) -> list[str]:
    """Let a role watch all recommenders, and with `requests` ask the workers for jobs; without, revoke that.

    Return the statements executed. Raises InvalidInput for an unknown role.
    """
    asking = "GRANT EXECUTE ON FUNCTION {} TO {};" if requests else "REVOKE EXECUTE ON FUNCTION {} FROM {};"
    return _run_for(
        connection,
        role,
        "GRANT USAGE ON SCHEMA recstore TO {role};",
        "GRANT SELECT ON ALL TABLES IN SCHEMA recstore TO {role};",
        asking.format(REQUESTS, "{role}"),
    )


def revoke_watcher(connection: Connection, role: str) -> list[str]:
    """Revoke what `grant_watcher` granted; return and raise as it does."""
    return _run_for(
        connection,
        role,
        f"REVOKE EXECUTE ON FUNCTION {REQUESTS} FROM {{role}};",
        "REVOKE SELECT ON ALL TABLES IN SCHEMA recstore FROM {role};",
        "REVOKE USAGE ON SCHEMA recstore FROM {role};",
    )


def _run_for(connection: Connection, role: str, *templates: str) -> list[str]:
    statements = [template.format(role=quoted(role)) for template in templates]
    check_role(connection, role)
    with plain_errors(f"changing the rights of {role!r}", connection), connection.transaction():
        for statement in statements:
            connection.execute(statement)
    return statements


def check_role(connection: Connection, role: str) -> None:
    """Raise InvalidInput unless the role exists."""
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
        raise InvalidInput(f"There is no role named {role!r}.")
