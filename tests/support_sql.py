"""What the tests of the SQL contract share: NumPy's answers to compare with, and ways to ask."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Barrier, Event
from typing import Any, TypeVar

import numpy as np
from conftest import Database
from numpy.typing import NDArray
from support import until

from recstore import registry
from recstore.model.interactions import Interactions, SourceReport
from recstore.postgres.connection import Connection
from recstore.source import pulling

T = TypeVar("T")
Rows = list[dict[str, Any]]


def rows(connection: Connection, statement: str, *values: object) -> Rows:
    return connection.execute(statement, values or None).fetchall()


def column(connection: Connection, statement: str, *values: object) -> list[Any]:
    """The first column."""
    return [next(iter(row.values())) for row in rows(connection, statement, *values)]


def value(connection: Connection, statement: str, *values: object) -> Any:
    """The one value of a statement that gives one."""
    (found,) = column(connection, statement, *values)
    return found


def wait_for_other_sessions(connection: Connection) -> None:
    """Wait until this session is the database's only one.

    A session reports what it counted up to ten seconds later, and at its end. Of another role's session only the database
    and the role are visible.
    """
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename IS NOT NULL"
    until(lambda: value(connection, sessions) == 1)


@contextmanager
def transaction(connection: Connection) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    with connection.transaction(force_rollback=True):
        yield connection


@dataclass(frozen=True)
class Factors:
    """X and Y of the live generation in double precision, read back from the views; rows in order of the ids."""

    users: list[Any]
    items: list[Any]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    item_users: NDArray[np.int64]
    item_views: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Predicted preferences, (users, items)."""
        return self.x @ self.y.T

    def user(self, user: Any) -> int:
        return self.users.index(user)

    def item(self, item: Any) -> int:
        return self.items.index(item)


def read_factors(connection: Connection, name: str = "retail") -> Factors:
    """From the unit vectors and the lengths, which the views show."""
    items = rows(
        connection,
        f"SELECT item_id, embedding::real[] AS unit, length, users, views FROM {name}.item_vectors"
        " WHERE embedding IS NOT NULL ORDER BY item_id",
    )
    users = rows(
        connection,
        f"SELECT user_id, preference::real[] AS unit, length FROM {name}.user_vectors"
        " WHERE preference IS NOT NULL ORDER BY user_id",
    )
    return Factors(
        [row["user_id"] for row in users],
        [row["item_id"] for row in items],
        _scaled(users),
        _scaled(items),
        np.array([row["users"] for row in items]),
        np.array([row["views"] for row in items]),
    )


def _scaled(found: Rows) -> NDArray[np.float64]:
    unit = np.array([row["unit"] for row in found], dtype=np.float64)
    return unit * np.array([row["length"] for row in found])[:, None]


def read_source(database: Database, name: str, *, with_times: bool = False) -> tuple[Interactions, SourceReport]:
    """Read the recommender's source as a training does."""
    with database.connect() as connection:
        recommender = registry.get(connection, name)
        interactions, report, _ = pulling.read(
            connection,
            database.url,
            database.settings,
            recommender,
            recommender.definition.source,
            application_name="test",
            with_times=with_times,
        )
    return interactions, report


def unit(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def assert_ranking(
    answer: Rows,
    ids: Sequence[Any],
    scores: NDArray[np.float64],
    k: int,
    *,
    excluded: Sequence[Any] = (),
    key: str = "item_id",
    tolerance: float = 2e-5,
) -> None:
    """`answer` is the k best of `ids` by `scores` without `excluded`, with those scores, best first, ties by id.

    The functions compute in single precision: within `tolerance` (of the largest score) two ids may change places.
    """
    expected = dict(zip(ids, scores.tolist(), strict=True))
    for one in excluded:
        expected.pop(one, None)
    margin = tolerance * float(np.abs(scores).max())
    given = [row[key] for row in answer]
    assert len(given) == min(k, len(expected))
    assert len(set(given)) == len(given)
    assert set(given) <= expected.keys(), set(given) - expected.keys()
    assert all(abs(row["score"] - expected[row[key]]) <= margin for row in answer)
    assert answer == sorted(answer, key=lambda row: (-row["score"], row[key]))
    if given:
        limit = sorted(expected.values(), reverse=True)[len(given) - 1]
        assert min(expected[one] for one in given) >= limit - 2 * margin


def together(number: int, function: Callable[[], T]) -> list[T]:
    """Calls it in so many threads at the same moment; returns what each returned."""
    barrier = Barrier(number)

    def call(_number: int) -> T:
        barrier.wait()
        return function()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(call, range(number)))


@contextmanager
def repeating(*functions: Callable[[], object]) -> Iterator[None]:
    """Calls each over and over in a thread of its own while the block runs; raises what one of them raises."""
    ended = Event()

    def repeat(function: Callable[[], object]) -> None:
        function()
        while not ended.is_set():
            function()

    with ThreadPoolExecutor(len(functions)) as pool:
        threads = [pool.submit(repeat, function) for function in functions]
        try:
            yield
        finally:
            ended.set()
        for thread in threads:
            thread.result()


WITHOUT_PEOPLE = [
    "SELECT * FROM retail.similar_items(1, 3)",
    "SELECT * FROM retail.popular_items(3)",
    "SELECT * FROM retail.recommend_for_items(ARRAY[1, 2])",
    "SELECT * FROM retail.item_vectors",
    "SELECT retail.generation()",
    "SELECT retail.use_search_settings()",
]

WITH_PEOPLE = [
    "SELECT * FROM retail.recommend(1, 3)",
    "SELECT * FROM retail.recommend(1, 3, false)",
    "SELECT * FROM retail.recommend(99999, 3)",
    "SELECT * FROM retail.rank_items(1, ARRAY[1, 2])",
    "SELECT * FROM retail.similar_users(1, 3)",
    "SELECT * FROM retail.users_for_item(1, 3)",
    "SELECT retail.user_vector(1)",
    "SELECT retail.predict(1, 1)",
    "SELECT * FROM retail.user_vectors",
    "SELECT * FROM retail.interactions",
]


def make_clicks(application: Connection, columns: str, *values: str) -> None:
    """Table shop.clicks with a few rows, readable by recstore."""
    application.execute(f"CREATE TABLE shop.clicks ({columns}); GRANT SELECT ON shop.clicks TO worker")
    if values:
        application.execute(f"INSERT INTO shop.clicks VALUES {', '.join(values)}")


def make_many(application: Connection, pairs: set[tuple[int, int]]) -> None:
    """Table shop.many with these pairs of user and item, each viewed once, readable by recstore."""
    application.execute(
        "CREATE TABLE shop.many (user_id int, item_id int, value int DEFAULT 1, PRIMARY KEY (user_id, item_id))"
    )
    application.execute(
        "INSERT INTO shop.many SELECT * FROM unnest(%s::int[], %s::int[])",
        list(map(list, zip(*sorted(pairs), strict=True))),
    )
    application.execute("GRANT SELECT ON shop.many TO worker; ANALYZE shop.many")


def set_step(application: Connection, body: str) -> None:
    application.execute(
        "CREATE OR REPLACE FUNCTION shop.step(id int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$"
        f" DECLARE found int; BEGIN {body} RETURN 1; END $$"
    )
