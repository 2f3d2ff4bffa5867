"""The embedded server: start, stop, psql, and the demos that run on it."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recstore import embedded
from recstore.api.rows import EmbeddedServer
from recstore.api.servers import Servers
from recstore.cli.commands import Commands
from recstore.cli.context import Json, settings, state
from recstore.cli.screen import say, show
from recstore.config import Settings, environment
from recstore.errors import EmbeddedUnavailable, InvalidInput
from recstore.postgres.connection import conninfo


def register(app: typer.Typer) -> None:
    commands = Commands(app, Servers)
    commands.add("start", _started, example="recstore start")
    commands.add("stop", _stopped, data=lambda stopped: {"stopped": stopped}, example="recstore stop")
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql)
    app.command()(demo)
    app.command()(worker_demo)


def _started(server: EmbeddedServer) -> None:
    say(f"PostgreSQL {server.version} runs as process {server.pid}, its data in {server.data}\n{server.url}")


def _stopped(stopped: bool, part: Servers) -> None:
    say("stopped" if stopped else f"no embedded server ran in {part.settings.home.absolute()}")


def psql(context: typer.Context) -> None:
    """Open psql on the configured database, or on the embedded one, started again if it is down.

    Arguments are psql's own. Example: recstore psql -c "SELECT * FROM retail.popular_items(5)"
    """
    own = settings()
    url = own.database_url
    if url is None:
        if not own.home.is_dir():
            raise InvalidInput(f"No embedded server was ever started in {own.home.absolute()}. Run: recstore start")
        url = embedded.start(own.home, embedded.version_in(own.home)).url
    try:
        program = str(embedded.tool_path(18, "psql"))
    except EmbeddedUnavailable:
        found = shutil.which("psql")
        if found is None:
            raise InvalidInput(
                "There is no psql on this machine. Install PostgreSQL's client, or recstore[embedded]."
            ) from None
        program = found
    parts = {name: str(part) for name, part in conninfo_to_dict(conninfo(url, "psql")).items()}
    password = parts.pop("password", None)  # the command line is public on the machine
    more = {"PGPASSWORD": password} if password else {}
    os.execve(program, [program, "-d", make_conninfo(**parts), *context.args], environment(**more))


def demo(json: Json = False) -> None:
    """Run the whole job on real data: start the embedded server, load a shop, train, and show what comes out.

    Always on the embedded server, never on a configured database. Example: recstore demo
    """
    from recstore import demo  # which imports all that trains

    own = settings()
    summary = demo.run(own, state.errors if json else state.output, _hint(own))
    if json:
        show(summary)


def worker_demo(
    seconds: Annotated[float, typer.Option(help="Length of the shop's year.", metavar="SECONDS", min=1)] = 60,
    json: Json = False,
) -> None:
    """Show the background work on real events: beat and a worker retrain as they arrive, a reader asks, each change is printed.

    Always on embedded servers of its own, which end with it. Example: recstore worker-demo
    """
    from recstore.demo import events

    own = settings()
    summary = events.run(own, state.errors if json else state.output, seconds, _hint(own))
    if json:
        show(summary)


def _hint(own: Settings) -> str:
    """Return the command that calls this program for the embedded server, whatever database is configured."""
    return "env -u RECSTORE_DATABASE_URL " * bool(own.database_url) + _program()


def _program() -> str:
    """Return the command that calls this program from the current folder."""
    called = Path(sys.argv[0])
    if shutil.which("recstore") == str(called):
        return "recstore"
    return shlex.quote(str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called))
