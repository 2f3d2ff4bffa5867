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
from recstore.cli.context import Json, say, settings, show, state
from recstore.config import Settings, environment
from recstore.errors import EmbeddedUnavailable, InvalidInput
from recstore.postgres.connection import conninfo


def register(app: typer.Typer) -> None:
    app.command()(start)
    app.command()(stop)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql)
    app.command()(demo)
    app.command()(worker_demo)


def start(
    version: Annotated[
        int | None, typer.Option(help="Of PostgreSQL: 18 or 16; by default the one that is here, or 18.", metavar="N")
    ] = None,
    json: Json = False,
) -> None:
    """Start the embedded PostgreSQL with pgvector; it stays until `recstore stop`.

    Example: recstore start
    """
    given = settings()
    server = embedded.start(given.home, version or embedded.version_in(given.home))
    if json:
        show({"url": server.url, "pid": server.pid, "version": server.version, "data": str(server.data)})
    say(f"PostgreSQL {server.version} runs as process {server.pid}, its data in {server.data}\n{server.url}")


def stop(json: Json = False) -> None:
    """Stop the embedded PostgreSQL; its data stay.

    Example: recstore stop
    """
    given = settings()
    stopped = embedded.stop(given.home)
    if json:
        show({"stopped": stopped})
    say("stopped" if stopped else f"no embedded server ran in {given.home.absolute()}")


def psql(context: typer.Context) -> None:
    """Open psql on the configured database, or on the embedded one, started again if it is down.

    Arguments are psql's own. Example: recstore psql -c "SELECT * FROM retail.popular_items(5)"
    """
    given = settings()
    url = given.database_url
    if url is None:
        if not given.home.is_dir():
            raise InvalidInput(f"No embedded server was ever started in {given.home.absolute()}. Run: recstore start")
        url = embedded.start(given.home, embedded.version_in(given.home)).url
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
    password = parts.pop("password", None)  # not on the command line, which everybody on the machine can read
    more = {"PGPASSWORD": password} if password else {}
    os.execve(program, ["psql", "-d", make_conninfo(**parts), *context.args], environment(**more))


def demo(json: Json = False) -> None:
    """The whole job on real data: start the embedded server, load a shop, train, and show what comes out.

    Always on the embedded server, never on a configured database. Example: recstore demo
    """
    from recstore import demo  # which imports all that trains

    given = settings()
    told = demo.run(given, state.errors if json else state.output, _hint(given))
    if json:
        show(told)


def worker_demo(
    seconds: Annotated[float, typer.Option(help="In which the shop's year passes.", metavar="SECONDS", min=1)] = 60,
    json: Json = False,
) -> None:
    """The background work on real events: beat and a worker retrain as they arrive, a reader asks, each change is told.

    Always on embedded servers of its own, which end with it. Example: recstore worker-demo
    """
    from recstore.demo import events

    given = settings()
    told = events.run(given, state.errors if json else state.output, seconds, _hint(given))
    if json:
        show(told)


def _hint(given: Settings) -> str:
    """How the reader calls this program again for the embedded server, whatever database is configured."""
    return "env -u RECSTORE_DATABASE_URL " * bool(given.database_url) + _program()


def _program() -> str:
    """How the reader calls this program again from where she is."""
    called = Path(sys.argv[0])
    if shutil.which("recstore") == str(called):
        return "recstore"
    return shlex.quote(str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called))
