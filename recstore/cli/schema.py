"""`recstore db ..`: recstore's own schema, and who may watch and ask."""

from typing import Annotated

import typer

from recstore import registry
from recstore.cli import completion
from recstore.cli.context import DryRun, Json, Yes, confirm, connection, say, show, show_statements
from recstore.cli.context import current as connected
from recstore.errors import RecstoreError
from recstore.operations import dry_run, schema
from recstore.postgres import grants
from recstore.sql import objects, schema_revision

group = typer.Typer(
    help="recstore's own schema in the database: upgrade, downgrade, check, grant.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="db")


@group.command()
def upgrade(dry: DryRun = False, json: Json = False) -> None:
    """Bring the database to this version: recstore's schema, then every recommender's functions and views.

    Idempotent. Readers read on. Example: recstore db upgrade
    """
    with connection() as (opened, url, given):
        if dry:
            show_statements(dry_run.upgrade(opened, given))
            return
        done = schema.upgrade(opened, url, given)
        if json:
            show({"done": done, "revision": schema_revision.current(opened)})
        for sentence in done or [f"already at revision {schema_revision.current(opened)}"]:
            say(sentence)
        lacking = [each.name for each in registry.all_registered(opened) if objects.missing(opened, each)]
        if lacking:
            raise RecstoreError(
                f"Not everything of {', '.join(lacking)} could be made anew. Mend what they read, then run it again."
            )


@group.command()
def downgrade(
    revision: Annotated[
        str,
        typer.Argument(
            help='The revision to go back to; "base" removes all but the version table.',
            autocompletion=completion.choosing("base"),
        ),
    ],
    dry: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Go back to an earlier revision; to base, where no recommender is left.

    Example: recstore db downgrade base --dry-run
    """
    with connection() as (opened, url, _settings):
        if dry:
            show_statements(dry_run.downgrade(opened, revision))
            return
        confirm(f"Downgrade recstore's schema to {revision}?", yes)
        schema.downgrade(url, revision)
        if json:
            show({"revision": schema_revision.current(opened)})
        say(f"downgraded to {revision}")


@group.command()
def current(json: Json = False) -> None:
    """Print the database's revision and the one this version needs.

    Example: recstore db current
    """
    with connection() as (opened, _, _settings):
        found, needed = schema_revision.current(opened), schema_revision.head()
        if json:
            show({"revision": found, "needed": needed})
        say(f"{found or 'no revision'} (this version needs {needed})")


@group.command()
def check(json: Json = False) -> None:
    """Compare the database with what this version declares.

    Example: recstore db check
    """
    with connection() as (opened, url, _):
        schema_revision.require_current(opened)
        schema.check(url)
        if json:
            show({"checked": True, "revision": schema_revision.current(opened)})
        say("the database is as this version declares it")


Role = Annotated[str, typer.Argument(help="The role.", show_default=False, autocompletion=completion.roles)]


@group.command()
def grant(
    role: Role,
    requests: Annotated[
        bool, typer.Option("--requests/--no-requests", help="Also ask for retrains and reindexes.")
    ] = True,
    dry: DryRun = False,
    json: Json = False,
) -> None:
    """Let a role watch all recommenders, and ask the workers for jobs; prints the statements.

    It sees the views of schema recstore, definitions and errors too, and nobody's vectors. Example: recstore db grant ops
    """
    with connected() as (opened, _, _settings):
        show_statements(grants.grant_watcher(opened, role, requests=requests, dry=dry))


@group.command()
def revoke(role: Role, dry: DryRun = False, json: Json = False) -> None:
    """Take back what recstore db grant gave a role.

    Example: recstore db revoke ops
    """
    with connected() as (opened, _, _settings):
        show_statements(grants.revoke_watcher(opened, role, dry=dry))
