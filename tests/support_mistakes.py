"""What the tests of mistakes share: a shop that is trained once, and what every refusal has to be."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import Answer, Database, drop_database, make_database, superuser

from recstore import cli
from recstore.definition import Hyperparameters, Source
from recstore.embedded import Server
from recstore.postgres.connection import Connection

EXIT_CODES = {0, 1, 2, 3, 4, 5, 6, 130}
"""Those that are documented."""

NOISE = re.compile(
    r"Traceback|psycopg|pydantic|sqlalchemy|adbc_|pyarrow|\bLINE \d|HINT:|DETAIL:|CONTEXT:|SQLSTATE|\[type=|input_value"
    r"|<class |object at 0x|Errno|\b[A-Z]\w+(Error|Exception)\b|  +\^|\w[.?!:,]\.(?= |$)"
)
"""What is for programmers, and has no place in a sentence for people."""


@dataclass
class Shop:
    """Recommenders `retail`, and `clicks` that has a table of its own which may come to harm: both live, with one
    generation; and `books`, which was never trained."""

    database: Database
    watcher: Connection = field(init=False)
    live: Any = field(init=False)

    def __post_init__(self) -> None:
        self.watcher = self.database.connect()
        self.live = self.answers()

    def answers(self) -> Any:
        """The live generations' numbers, and what they recommend."""
        return [
            self.watcher.execute(
                f"SELECT {name}.generation() AS live, array(SELECT item_id FROM {name}.recommend(7, 5)) AS items"
            ).fetchone()
            for name in ("retail", "clicks")
        ]

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str, url: str | None = None) -> Answer:
        """A command line in this process, on this database unless `url` says otherwise (empty: none is given)."""
        url = self.database.url if url is None else url
        code = cli.run([*(["--database", url] if url else []), *arguments])
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    def administer(self, *statements: str) -> None:
        """As a superuser, who owns the server."""
        with superuser(self.database.server, self.database.name) as connection:
            for statement in statements:
                connection.execute(statement)

    def own(self, *statements: str) -> None:
        """As the application, which owns the tables."""
        with self.database.connect("application") as connection:
            for statement in statements:
                connection.execute(statement)

    def assert_unharmed(self) -> None:
        assert self.answers() == self.live


@contextmanager
def trained_shop(server: Server, template: str, **definition: object) -> Iterator[Shop]:
    """`definition`: more of that of `clicks`."""
    database = make_database(server, template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSTORE_RETENTION", "0")
        with database.connect("application") as application:
            application.execute("CREATE TABLE shop.clicks (LIKE shop.views INCLUDING ALL)")
            application.execute("INSERT INTO shop.clicks TABLE shop.views; GRANT SELECT ON shop.clicks TO worker")
        clicks = Source(table="shop.clicks", item="product_id", value="view_count", seen="published")
        database.create()
        database.create("clicks", source=clicks, **definition)
        database.create("books", hyperparameters=Hyperparameters(factors=8, iterations=1))
        database.retrain()
        database.retrain("clicks")
        yield Shop(database)
    drop_database(database)


def sentence_of(answer: Answer) -> str:
    """The one sentence, or few, that a refusal is: after what was told of the work, and but for where help is the last."""
    lines = answer.err.splitlines()
    begin = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    assert len(begin) == 1, answer.err
    assert all(line.startswith("Try: recstore") for line in lines[begin[0] + 1 :]), answer.err
    assert answer.out == ""
    sentence = lines[begin[0]].removeprefix("Error: ")
    assert not NOISE.search(sentence), sentence
    return sentence


def commands(command: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """(name, click command) of each that can be called, a group's as "db upgrade"."""
    command = command or typer.main.get_command(cli.application())
    for name, below in command.commands.items():
        if hasattr(below, "commands"):
            yield from commands(below, f"{name} ")
        else:
            yield path + name, below


def files_in(folder: Path) -> set[Path]:
    with suppress(OSError):
        return set(folder.iterdir())
    return set()
