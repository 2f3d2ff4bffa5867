"""The read side in Python gives what the SQL functions give, in the caller's transaction, and composes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from conftest import Database
from sqlalchemy.orm import Session
from support_sql import rows

from recstore import Recommender

ASKED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("recommend", (1, 5), {}),
    ("recommend", (1,), {"k": 5, "exclude_seen": False}),
    ("recommend", (10**6, 3), {}),
    ("similar_items", (3, 5), {"min_users": 1}),
    ("similar_users", (1, 5), {}),
    ("users_for_item", (3, 5), {}),
    ("popular_items", (5,), {}),
    ("predict", (1, 3), {}),
    ("predict", (1, 999), {}),
    ("generation", (), {}),
]


@pytest.fixture
def engine(shared: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(shared.url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=sa.NullPool)
    yield engine
    engine.dispose()


def test_methods_are_the_functions(shared: Database, engine: sa.Engine) -> None:
    retail, connection = Recommender(engine, "retail"), shared.connect()
    for name, arguments, options in ASKED:
        given = ", ".join(map(str, (*arguments, *options.values())))
        expected = rows(connection, f"SELECT * FROM retail.{name}({given})")
        answer = getattr(retail, name)(*arguments, **options)
        if isinstance(answer, list):
            assert [row._asdict() for row in answer] == expected
            assert len(expected) in (3, 5)
        else:
            assert [answer] == list(expected[0].values())
    assert (retail.generation(), retail.predict(1, 999)) == (1, None)
    vector = retail.user_vector(1)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert retail.recommend(10**6, 3)[0].reason == "popular"


def test_the_direct_query_composes_and_equals_the_function(engine: sa.Engine) -> None:
    products = sa.table("products", sa.column("product_id"), sa.column("title"), sa.column("visible"), schema="shop")
    with engine.begin() as connection:
        retail = Recommender(connection, "retail")
        retail.use_search_settings()
        vectors = retail.item_vectors
        for user in range(1, 41):
            query = (
                sa.select(products.c.product_id)
                .join(vectors, vectors.c.item_id == products.c.product_id)
                .where(products.c.visible)
                .order_by(
                    vectors.c.preference.max_inner_product(retail.select_user_vector(user)), products.c.product_id
                )
                .limit(10)
            )
            direct = connection.execute(query).scalars().all()
            assert direct == [row.item_id for row in retail.recommend(user, 10, exclude_seen=False)]
        listed = retail.select_recommend(1, 5)
        titled = sa.select(listed.c.item_id, products.c.title).join(products, products.c.product_id == listed.c.item_id)
        assert len(connection.execute(titled).all()) == 5


def test_it_joins_the_callers_transaction(engine: sa.Engine, shared: Database) -> None:
    with Session(engine) as session:
        before = [row.item_id for row in Recommender(session, "retail").recommend(1, 3)]
        connection = shared.connect("application")
        connection.execute("INSERT INTO shop.views VALUES (1, %s, 1) ON CONFLICT DO NOTHING", [before[0]])
        try:
            after = [row.item_id for row in Recommender(session, "retail").recommend(1, 3)]
            assert before[0] not in after  # what was seen a moment ago is gone from the next answer
        finally:
            connection.execute("DELETE FROM shop.views WHERE user_id = 1 AND product_id = %s", [before[0]])


def test_search_settings_need_a_transaction(engine: sa.Engine) -> None:
    with pytest.raises(TypeError, match="connection or a session"):
        Recommender(engine, "retail").use_search_settings()


@pytest.mark.parametrize("name", ["retail_", "opts", "func"])
def test_functions_are_those_of_the_schema_whatever_its_name(name: str) -> None:
    """SQLAlchemy's own `func` takes an underscore off the end of a name, and `opts` for its own."""
    statement = str(sa.select(Recommender(sa.create_engine("postgresql+psycopg://"), name).select_popular_items(3)))
    assert f"FROM {name}.popular_items(" in statement
