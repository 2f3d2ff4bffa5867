"""`recstore db ..`: recstore's own schema, and who may watch and ask."""

from typing import Annotated

import typer

from recstore import migrate
from recstore.cli.context import Json, Yes, confirm, connection, say, show, state, use_json
from recstore.cli.context import current as connected
from recstore.database import plain_errors
from recstore.errors import InvalidInput
from recstore.objects import quoted

group = typer.Typer(
    help="recstore's own schema in the database: upgrade, downgrade, check, grant.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="db")


@group.command()
def upgrade(json: Json = False) -> None:
    """Bring the database to this version: recstore's schema, then every recommender's functions and views.

    Idempotent. Readers read on. Example: recstore db upgrade
    """
    use_json(json)
    with connection() as (opened, url, given):
        done = migrate.upgrade(opened, url, given)
        if json:
            show({"done": done, "revision": migrate.current(opened)})
        for sentence in done or [f"already at revision {migrate.current(opened)}"]:
            say(sentence)


@group.command()
def downgrade(
    revision: Annotated[
        str, typer.Argument(help='The revision to go back to; "base" removes all but the version table.')
    ],
    yes: Yes = False,
) -> None:
    """Go back to an earlier revision. Refused while there are recommenders.

    Example: recstore db downgrade base
    """
    with connection() as (_, url, _settings):
        confirm(f"Downgrade recstore's schema to {revision}?", yes)
        migrate.downgrade(url, revision)
        say(f"downgraded to {revision}")


@group.command()
def current(json: Json = False) -> None:
    """Print the database's revision and the one this version needs.

    Example: recstore db current
    """
    use_json(json)
    with connection() as (opened, _, _settings):
        found, needed = migrate.current(opened), migrate.head()
        if json:
            show({"revision": found, "needed": needed})
        say(f"{found or 'no revision'} (this version needs {needed})")


@group.command()
def check() -> None:
    """Compare the database with what this version declares.

    Example: recstore db check
    """
    with connection() as (opened, url, _):
        migrate.require_current(opened)
        migrate.check(url)
        say("the database is as this version declares it")


REQUESTS = (
    "recstore.request_retrain(text), recstore.request_retrain(text, boolean), recstore.request_reindex(text),"
    " recstore.cancel_request(bigint)"
)
"""What a role calls to ask the workers; they run with their owner's rights."""

Role = Annotated[str, typer.Argument(help="The role.", show_default=False)]


@group.command()
def grant(
    role: Role,
    requests: Annotated[
        bool, typer.Option("--requests/--no-requests", help="Also ask for retrains and reindexes.")
    ] = True,
    json: Json = False,
) -> None:
    """Let a role watch all recommenders, and ask the workers for jobs; prints the statements.

    It sees the views of schema recstore, definitions and errors too, and nobody's vectors. Example: recstore db grant ops
    """
    use_json(json)
    asking = "GRANT EXECUTE ON FUNCTION {} TO {};" if requests else "REVOKE EXECUTE ON FUNCTION {} FROM {};"
    _run_for(
        role,
        "GRANT USAGE ON SCHEMA recstore TO {role};",
        "GRANT SELECT ON ALL TABLES IN SCHEMA recstore TO {role};",
        asking.format(REQUESTS, "{role}"),
    )


@group.command()
def revoke(role: Role, json: Json = False) -> None:
    """Take back what recstore db grant gave a role.

    Example: recstore db revoke ops
    """
    use_json(json)
    _run_for(
        role,
        f"REVOKE EXECUTE ON FUNCTION {REQUESTS} FROM {{role}};",
        "REVOKE SELECT ON ALL TABLES IN SCHEMA recstore FROM {role};",
        "REVOKE USAGE ON SCHEMA recstore FROM {role};",
    )


def _run_for(role: str, *templates: str) -> None:
    """Runs the statements in one transaction and prints them. Raises InvalidInput for an unknown role."""
    statements = [template.format(role=quoted(role)) for template in templates]
    with connected() as (opened, _, _settings):
        if opened.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
            raise InvalidInput(f"There is no role named {role!r}.")
        with plain_errors(f"changing the rights of {role!r}", opened), opened.transaction():
            for statement in statements:
                opened.execute(statement)
    if state.json:
        show({"statements": statements})
    for statement in statements:
        say(statement)
