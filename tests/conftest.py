"""A real PostgreSQL for every test that wants one: a server per session, a template database, a database per test.

recstore's own role is `worker`, which is no superuser and owns neither the database nor the application's tables; the
application's is `application`. RECSTORE_TEST_POSTGRES chooses the version (18, or 16 for the contract subset),
RECSTORE_TEST_SERVER a host whose server on port 5432 trusts everyone instead, RECSTORE_TEST_HYPOTHESIS=thorough more examples.
"""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import hypothesis
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv
import pytest
from psycopg.rows import dict_row

from recstore import cli, pipeline, registry
from recstore.config import Settings
from recstore.definition import Definition, Hyperparameters, Publication, Source
from recstore.embedded import Server, temporary_server
from recstore.model.interactions import IdMap, Interactions, InteractionsBuilder
from recstore.operations import jobs, readers, schema
from recstore.postgres.connection import Connection, conninfo
from recstore.postgres.session import open_session
from recstore.sql.objects import Registered
from recstore.types import IdType

os.environ["RECSTORE_CALIBRATION_QUESTIONS"] = "2"  # the real number takes most of a small training
os.environ.setdefault("RECSTORE_THREADS", "1")  # what several threads gain at these sizes, their waiting costs
with suppress(ValueError):  # not in the main thread
    # a shell's background job ignores both, and tests send them
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
VERSION = int(os.environ.get("RECSTORE_TEST_POSTGRES", "18"))
_numbers = count(1)

# a loaded machine is no mistake
unhurried: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("fast", max_examples=50, **unhurried)
hypothesis.settings.register_profile("thorough", max_examples=1000, **unhurried)
hypothesis.settings.load_profile(os.environ.get("RECSTORE_TEST_HYPOTHESIS", "fast"))


@dataclass
class Database:
    """One database of the test server; closes the connections it handed out."""

    server: Server
    name: str
    opened: list[Connection] = field(default_factory=list)

    def url_of(self, role: str) -> str:
        return f"postgresql://{role}@/{self.name}?host={quote(str(self.server.sockets), safe='')}"

    @property
    def url(self) -> str:
        """As recstore's own role."""
        return self.url_of("worker")

    @property
    def settings(self) -> Settings:
        """Nothing kept or waited for longer than a test needs."""
        return Settings(database_url=self.url, retention=0, flip_wait=20, prune_wait=5, home=Path("/nonexistent"))

    def connect(self, role: str = "worker") -> Connection:
        connection: Connection = open_session(conninfo(self.url_of(role), "test"), row_factory=dict_row)
        connection.execute("SET search_path TO DEFAULT")  # as an application, not as recstore
        self.opened.append(connection)
        return connection

    def create(self, name: str = "retail", **definition: object) -> Registered:
        """A recommender over shop.views with small, quick defaults; the same pairs are held out each time."""
        given: dict[str, object] = {
            "source": Source(table="shop.views", user="user_id", item="product_id", value="view_count"),
            "hyperparameters": Hyperparameters(factors=16, iterations=5),
            "publication": Publication(search="exact"),
        }
        with self.connect() as connection:
            registry.create(connection, name, Definition(**(given | definition)))  # type: ignore[arg-type]
            # nothing that is said of quality depends on the day's random key
            connection.execute(
                "UPDATE recstore_private.recommenders SET held_out_key = md5(name)::uuid WHERE name = %s", [name]
            )
            return registry.get(connection, name)

    def alter(self, name: str = "retail", **sections: object) -> Registered:
        """Replace sections of its definition."""
        with self.connect() as connection:
            recommender = registry.get(connection, name)
            altered = recommender.definition.model_copy(update=sections)
            return registry.alter(connection, self.settings, recommender, altered)

    def retrain(self, name: str = "retail", **more: object) -> jobs.Outcome:
        return pipeline.retrain(self.url, self.settings, name, **more)  # type: ignore[arg-type]


def superuser(server: Server, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
    url = f"postgresql://postgres@/{database}?host={quote(str(server.sockets), safe='')}"
    return psycopg.connect(url, autocommit=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """In memory where there is plenty: a database for each test is a thousand files that are made and removed."""
    memory, host = Path("/dev/shm"), os.environ.get("RECSTORE_TEST_SERVER")
    with ExitStack() as stack:
        if host:
            server = Server(VERSION, Path("/nonexistent"), Path(host), 0)
        else:
            with pytest.MonkeyPatch.context() as patch:
                if memory.is_dir() and shutil.disk_usage(memory).free > 8 << 30:
                    patch.setattr(tempfile, "tempdir", str(memory))
                settings = {"max_connections": "60", "max_wal_size": "512MB", "max_prepared_transactions": "2"}
                server = stack.enter_context(temporary_server(VERSION, settings))
        administration(server).execute("CREATE ROLE worker LOGIN; CREATE ROLE application LOGIN")
        yield server
        administration(server).close()


@cache
def administration(server: Server) -> psycopg.Connection[tuple[object, ...]]:
    """One connection of the superuser for all that is created and dropped."""
    return superuser(server)


def make_database(server: Server, template: str) -> Database:
    name = f"test_{next(_numbers)}"
    connection = administration(server)
    connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    connection.execute(f"GRANT CREATE ON DATABASE {name} TO worker, application")
    return Database(server, name)


def drop_database(database: Database) -> None:
    for connection in database.opened:
        connection.close()
    administration(database.server).execute(f"DROP DATABASE {database.name} WITH (FORCE)")


@contextmanager
def database_from(server: Server, template: str) -> Iterator[Database]:
    database = make_database(server, template)
    try:
        yield database
    finally:
        drop_database(database)


def make_template(database: Database, name: str) -> str:
    for connection in database.opened:
        connection.close()
    administration(database.server).execute(f"ALTER DATABASE {database.name} RENAME TO {name}")
    return name


@pytest.fixture(scope="session")
def empty_template(server: Server) -> str:
    """pgvector, and nothing else."""
    administration(server).execute("CREATE DATABASE template_empty")
    with superuser(server, "template_empty") as connection:
        connection.execute("CREATE EXTENSION vector")
    return "template_empty"


@pytest.fixture(scope="session")
def shop_template(server: Server, empty_template: str) -> str:
    """Migrated, with a small shop: see `planted_views`."""
    database = make_database(server, empty_template)
    with database.connect() as connection:
        schema.upgrade(connection, database.url, database.settings)
    with database.connect("application") as connection:
        make_shop(connection)
    return make_template(database, "template_shop")


@pytest.fixture(scope="session")
def trained_template(server: Server, shop_template: str) -> str:
    """The small shop with the recommender `retail`, whose first generation is live."""
    database = make_database(server, shop_template)
    database.create()
    assert database.retrain().live
    return make_template(database, "template_trained")


@pytest.fixture(scope="session")
def published_template(server: Server, shop_template: str) -> str:
    """The small shop with the recommender `retail`, which the application may read: the first of `Generations` is live."""
    from support import Generations

    database = make_database(server, shop_template)
    recommender = database.create()
    with database.connect() as connection:
        readers.grant_reader(connection, recommender, "application", people=True)
    Generations(database).publish()
    return make_template(database, "template_published")


def planted_views(users: int = 240, items: int = 120, clusters: int = 6, seed: int = 7) -> np.ndarray:
    """Rows (user_id, product_id, view_count): users of a cluster view mostly its items, the first of them most."""
    random = np.random.default_rng(seed)
    rows = []
    size = items // clusters
    for user in range(users):
        own = (user % clusters) * size + np.minimum(random.geometric(0.15, 12) - 1, size - 1)
        other = random.integers(0, items, 2)
        for item in np.unique(np.concatenate([own, other])):
            rows.append((user + 1, item + 1, random.integers(1, 9)))
    return np.array(rows)


def make_shop(connection: Connection) -> None:
    """Schema shop as an application has it, readable by recstore's role."""
    connection.execute("CREATE SCHEMA shop")
    connection.execute(
        "CREATE TABLE shop.products (product_id integer PRIMARY KEY, title text NOT NULL, visible boolean NOT NULL DEFAULT true)"
    )
    connection.execute("INSERT INTO shop.products SELECT n, 'product ' || n FROM generate_series(1, 120) n")
    make_views(connection)
    connection.execute("GRANT USAGE ON SCHEMA shop TO worker")
    connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA shop TO worker")


def make_views(connection: Connection) -> None:
    """The table of planted view counts."""
    connection.execute(
        "CREATE TABLE shop.views (user_id bigint, product_id integer, view_count integer NOT NULL,"
        " PRIMARY KEY (user_id, product_id))"
    )
    rows = planted_views()
    connection.execute(
        "INSERT INTO shop.views SELECT * FROM unnest(%s::bigint[], %s::int[], %s::int[])",
        [column.tolist() for column in rows.T],
    )
    connection.execute("ANALYZE shop.views")
    connection.execute("GRANT SELECT ON shop.views TO worker")


@pytest.fixture(scope="session")
def course() -> Interactions:
    """Clicks of learners on the pages of a course. Tests change nothing of it."""
    table = pyarrow.csv.read_csv(Path(__file__).parent / "data" / "oulad_aaa_sample.views.csv.gz")
    builder = InteractionsBuilder(IdType.BIGINT, IdType.BIGINT, "sum", 0.0, "course")
    for batch in table.rename_columns(["user_id", "item_id", "value"]).to_batches():
        builder.add(batch)
    interactions, report = builder.build()
    assert (report.pairs, report.users, report.items) == (6055, 364, 119)
    return interactions


@pytest.fixture(scope="session")
def views() -> Interactions:
    """900 users of 9 clusters with 20 items each, 15 views of an own item to one of another. Tests change nothing of it."""
    random = np.random.default_rng(5)
    rows = set()
    for user in range(900):
        own = (user % 9) * 20 + np.minimum(random.geometric(0.12, 14) - 1, 19)
        rows |= {(user, int(item)) for item in np.concatenate([own, random.integers(0, 180, 2)])}
    user, item = np.array(sorted(rows), dtype=np.int32).T
    values = random.integers(1, 9, len(user)).astype(float)
    return Interactions(IdMap(pa.array(range(900))), IdMap(pa.array(range(180))), user, item, values)


@pytest.fixture(scope="module")
def calibrated() -> Iterator[None]:
    """Calibration asks its default number of questions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RECSTORE_CALIBRATION_QUESTIONS")
        yield


def copy_of(template: str, scope: Literal["function", "module"] = "function") -> Any:
    """A fixture: a database made from what the fixture `template` names, dropped at the end."""

    @pytest.fixture(scope=scope)
    def copy(server: Server, request: pytest.FixtureRequest) -> Iterator[Database]:
        with database_from(server, request.getfixturevalue(template)) as database:
            yield database

    return copy


empty = copy_of("empty_template")
shop = copy_of("shop_template")
trained = copy_of("trained_template")
shared = copy_of("trained_template", "module")
"""For tests that leave it as it was."""


@pytest.fixture
def application(shop: Database) -> Connection:
    """The shop's database as the application's own role."""
    return shop.connect("application")


@pytest.fixture
def stepping(application: Connection) -> Connection:
    """shop.live: a view of nine rows whose value is shop.step(), which `set_step` gives something to do."""
    application.execute("CREATE TABLE shop.log (line text)")
    application.execute(
        "CREATE FUNCTION shop.step(id int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN 1; END $$"
    )
    application.execute("GRANT ALL ON shop.log TO worker")
    application.execute(
        "CREATE VIEW shop.live AS SELECT id AS user_id, id AS item_id, shop.step(id) AS value"
        " FROM generate_series(1, 9) id"
    )
    application.execute("GRANT SELECT ON shop.live TO worker")
    return application


@dataclass
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def expect(self, code: int, *words: str) -> "Answer":
        """Assert the exit code, and that these words were printed."""
        printed = self.out + self.err
        assert (self.code, [one for one in words if one not in printed]) == (code, []), printed
        return self


Command = Callable[..., Answer]


@pytest.fixture
def recstore(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs a command line in this process, on the database of the fixture `trained` where the test has it, else of `shop`."""
    database: Database = request.getfixturevalue("trained" if "trained" in request.fixturenames else "shop")
    monkeypatch.setenv("RECSTORE_RETENTION", "0")

    def run(line: str, *more: str, url: str = "") -> Answer:
        code = cli.run(["--database", url or database.url, *line.split(), *more])
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return run
