"""`recstore db ..`: recstore's own schema."""

from typing import Annotated

import typer

from recstore import migrate
from recstore.cli.context import Json, Yes, confirm, connection, say, show, use_json

group = typer.Typer(help="recstore's own schema in the database: upgrade, downgrade, check.", no_args_is_help=True)


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
