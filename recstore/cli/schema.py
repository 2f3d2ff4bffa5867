"""`recstore db ..`: recstore's own schema, and who may watch and ask."""

import typer

from recstore.api.rehearse import SchemaRehearsal
from recstore.api.rows import Revision, Upgraded
from recstore.api.schema import Schema
from recstore.cli.commands import Commands, statements
from recstore.cli.screen import say
from recstore.errors import RecstoreError

LOST = (
    "What later revisions keep is lost: below 0008 the erasures, so that a file or a training of before may bring people back;"
    " below 0007 withheld generations, which the next dispatch removes."
)


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="recstore's own schema in the database: upgrade, downgrade, check, grant.", no_args_is_help=True
    )
    app.add_typer(group, name="db")
    commands = Commands(group, Schema, SchemaRehearsal)
    commands.add("upgrade", _upgraded, notes="Idempotent. Readers read on.", example="recstore db upgrade")
    commands.add(
        "downgrade",
        _downgraded,
        ask=lambda revision: f"Downgrade recstore's schema to {revision}? {LOST}",
        notes=LOST,
        data=lambda found: {"revision": found.revision},
        example="recstore db downgrade base --dry-run",
    )
    commands.add("current", _current, example="recstore db current")
    commands.add(
        "check",
        _checked,
        data=lambda found: {"checked": True, "revision": found.revision},
        example="recstore db check",
    )
    commands.add(
        "grant",
        statements,
        notes="It sees the views of schema recstore, definitions and errors too, but no vectors.",
        example="recstore db grant ops",
    )
    commands.add("revoke", statements, example="recstore db revoke ops")


def _upgraded(found: Upgraded) -> None:
    for sentence in found.done or [f"already at revision {found.revision}"]:
        say(sentence)
    if found.missing:
        raise RecstoreError(
            f"Not everything of {', '.join(found.missing)} could be rebuilt. Fix what they read, then run it again."
        )


def _downgraded(_: Revision, revision: str) -> None:
    say(f"downgraded to {revision}")


def _checked(_: Revision) -> None:
    say("the database is as this version declares it")


def _current(found: Revision) -> None:
    say(f"{found.revision or 'no revision'} (this version needs {found.needed})")
