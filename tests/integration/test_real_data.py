"""The demo's real data with the default definition but fewer factors, which are trained sooner: the ANN recall that calibration
promises, by function and by query."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Database, drop_database, make_database
from support_sql import Factors, column, read_factors, rows, unit

from recstore.definition import Hyperparameters, Publication
from recstore.demo import load_shop
from recstore.embedded import Server
from recstore.operations import schema

pytestmark = pytest.mark.usefixtures("calibrated")


@pytest.fixture(scope="module")
def retail(server: Server, empty_template: str) -> Iterator[Database]:
    database = make_database(server, empty_template)
    with database.connect() as worker:
        schema.upgrade(worker, database.url, database.settings)
    application = database.connect("application")
    load_shop(application)
    application.execute("UPDATE shop.products SET visible = product_id % 3 > 0")
    application.execute("GRANT USAGE ON SCHEMA shop TO worker")
    application.execute("GRANT SELECT ON ALL TABLES IN SCHEMA shop TO worker")
    application.execute("ANALYZE shop.views, shop.products")
    database.create(hyperparameters=Hyperparameters(factors=64), publication=Publication(search="hnsw"))
    assert database.retrain().live
    yield database
    drop_database(database)


@pytest.fixture(scope="module")
def retail_factors(retail: Database) -> Factors:
    with retail.connect() as connection:
        return read_factors(connection)


SAMPLE = 150

WITHIN = 0.99 - 0.01
"""What calibration found on its own sample to be 0.99 or more, less three standard errors of a sample of this size."""


def best(of: Factors, scores: np.ndarray) -> list[Any]:
    """The items of the ten highest scores."""
    return [of.items[i] for i in np.argsort(-scores, kind="stable")[:10]]


def ann_recall(answers: list[list[Any]], exact: list[list[Any]]) -> float:
    found = sum(len(set(mine) & set(right)) for mine, right in zip(answers, exact, strict=True))
    return found / sum(map(len, exact))


def test_hnsw_reaches_the_ann_recall_on_real_data(retail: Database, retail_factors: Factors) -> None:
    of, connection = retail_factors, retail.connect()
    (chosen,) = rows(connection, "SELECT recommend_ef, similar_ef FROM retail._generation")
    assert all(chosen.values())
    random = np.random.default_rng(1)
    viewed = {
        row["user_id"]: row["items"]
        for row in rows(connection, "SELECT user_id, array_agg(product_id) AS items FROM shop.views GROUP BY 1")
    }
    answers, exact = [], []
    for user in random.choice(of.users, SAMPLE, replace=False).tolist():
        answers.append(column(connection, "SELECT item_id FROM retail.recommend(%s)", user))
        scores = of.y @ of.x[of.user(user)]
        scores[np.searchsorted(of.items, viewed[user])] = -np.inf
        exact.append(best(of, scores))
        assert not set(viewed[user]) & set(answers[-1])
        assert len(answers[-1]) == 10
    assert ann_recall(answers, exact) >= WITHIN
    answers, exact, directions = [], [], unit(of.y)
    for item in random.choice(of.items, SAMPLE, replace=False).tolist():
        answers.append(column(connection, "SELECT item_id FROM retail.similar_items(%s, 10, 1)", item))
        scores = directions @ directions[of.item(item)]
        scores[of.item(item)] = -np.inf
        exact.append(best(of, scores))
    assert ann_recall(answers, exact) >= WITHIN


DIRECT = """
SELECT r.product_id
FROM shop.products r JOIN retail.item_vectors v ON v.item_id = r.product_id
WHERE r.visible AND r.title LIKE %s
ORDER BY v.preference <#> (SELECT retail.user_vector(%s)) LIMIT 10
"""

UNFILTERED = """
SELECT item_id FROM retail.item_vectors ORDER BY preference <#> (SELECT retail.user_vector(%s)) LIMIT 10
"""


def test_an_own_query_agrees_with_numpy_and_the_function(retail: Database, retail_factors: Factors) -> None:
    of, connection = retail_factors, retail.connect()
    random = np.random.default_rng(2)
    users = random.choice(of.users, SAMPLE, replace=False).tolist()

    def searched(query: str, *values: object) -> list[Any]:
        with connection.transaction():
            connection.execute("SELECT retail.use_search_settings()")
            return column(connection, query, *values)

    for pattern in ("%", "%RED%", "%CHRISTMAS%"):
        allowed = column(connection, "SELECT product_id FROM shop.products WHERE visible AND title LIKE %s", pattern)
        hidden = ~np.isin(of.items, allowed)
        answers, exact = [], []
        for user in users:
            answers.append(searched(DIRECT, pattern, user))
            scores = of.y @ of.x[of.user(user)]
            scores[hidden] = -np.inf
            exact.append(best(of, scores))
            assert len(answers[-1]) == 10
        assert ann_recall(answers, exact) >= WITHIN, pattern
    without = [searched(UNFILTERED, user) for user in users]
    function = [column(connection, "SELECT item_id FROM retail.recommend(%s, 10, false)", user) for user in users]
    assert ann_recall(without, function) >= 0.98
