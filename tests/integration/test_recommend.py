"""The read side in Python gives what the SQL functions give, over whatever an application has, in its transaction, and
composes; the asynchronous one gives the same rows."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from inspect import iscoroutinefunction, isfunction, signature
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from conftest import Database
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from support_sql import rows

from recstore import AsyncRecommender, Recommender
from recstore.recommend import Selectables, array
from recstore.sql import queries

ASKED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("recommend", (1, 5), {}),
    ("recommend", (1,), {"k": 5, "exclude_seen": False}),
    ("recommend", (10**6, 3), {}),
    ("recommend", (1, 5), {"exclude_items": [3, None, 10**12]}),
    ("recommend_for_items", ([3, 5],), {"k": 5}),
    ("recommend_for_items", (np.array([3, 5]), np.array([2.5, -1]), 5), {"exclude_items": (7,)}),
    ("recommend_for_items", ([], [], 5), {}),
    ("recommend_for_items", ([3, 5], [3, 0.5], 5), {}),
    ("recommend_for_items", ([3, 5], [Decimal("0.25"), None], 5), {}),
    ("rank_items", (1, {3: None, 999: None, 5: None}), {}),
    ("similar_items", (3, 5), {"min_users": 1}),
    ("similar_items", (3, 5), {"exclude_items": [6, 9]}),
    ("popular_items", (5,), {"exclude_items": []}),
    ("similar_users", (1, 5), {}),
    ("users_for_item", (3, 5), {}),
    ("popular_items", (5,), {}),
    ("predict", (1, 3), {}),
    ("predict", (1, 999), {}),
    ("generation", (), {}),
]


@pytest.fixture(scope="module")
def url(shared: Database) -> str:
    return shared.url.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


def literal(value: Any) -> str:
    """A number, or an array of them, in SQL."""
    if isinstance(value, int):
        return str(value)
    return "'{" + ", ".join("NULL" if each is None else str(each) for each in value) + "}'"


def test_methods_are_the_functions(shared: Database, engine: sa.Engine) -> None:
    retail, connection = Recommender(engine, "retail"), shared.connect()
    for name, arguments, options in ASKED:
        given = ", ".join([*map(literal, arguments), *(f"{name} => {literal(each)}" for name, each in options.items())])
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


def test_uuids_may_be_given_as_text_next_to_others() -> None:
    one, other = UUID(int=1), UUID(int=2)
    given = array([one, str(other), None])
    assert isinstance(given, sa.BindParameter)
    assert given.value == [one, other, None]


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


def test_it_sees_what_others_have_committed_since(engine: sa.Engine, shared: Database) -> None:
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


@asynccontextmanager
async def engine_of(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


async def joins(engine: AsyncEngine) -> None:
    """In one transaction: search settings, an own query; afterwards nothing of it stays."""
    async with async_sessionmaker(engine)() as session:
        retail = AsyncRecommender(session, "retail")
        await retail.use_search_settings()
        assert (await session.execute(sa.text("SHOW hnsw.iterative_scan"))).scalar_one() == "strict_order"
        vectors, candidates = retail.item_vectors, retail.candidates
        query = (
            sa.select(vectors.c.item_id)
            .join(candidates, candidates.c.item_id == vectors.c.item_id)
            .order_by(vectors.c.preference.max_inner_product(retail.select_user_vector(1)), vectors.c.item_id)
            .limit(5)
        )
        best = (await session.execute(query)).scalars().all()
        assert best == [row.item_id for row in await retail.recommend(1, 5, exclude_seen=False)]
        counted = sa.select(sa.func.count()).select_from(retail.select_recommend(1, 5))
        assert (await session.execute(counted)).scalar_one() == 5
        await session.rollback()


async def needs_a_transaction(engine: AsyncEngine) -> None:
    with pytest.raises(TypeError, match="a connection or a session"):
        await AsyncRecommender(engine, "retail").use_search_settings()


@pytest.mark.parametrize("use", [joins, needs_a_transaction])
def test_it_joins_the_callers_transaction(use: Callable[[AsyncEngine], Any], url: str) -> None:
    async def run() -> None:
        async with engine_of(url) as engine:
            await use(engine)

    asyncio.run(run())


def connection(engine: AsyncEngine) -> AbstractAsyncContextManager[Any]:
    return engine.begin()


def session(engine: AsyncEngine) -> AbstractAsyncContextManager[Any]:
    return async_sessionmaker(engine)()


@asynccontextmanager
async def itself(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    yield engine


@asynccontextmanager
async def scoped(engine: AsyncEngine) -> AsyncIterator[async_scoped_session[AsyncSession]]:
    made = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
    yield made
    await made.remove()


@pytest.mark.parametrize("bind_of", [itself, connection, session, scoped])
def test_async_rows_are_the_synchronous_ones(
    bind_of: Callable[[AsyncEngine], AbstractAsyncContextManager[Any]], url: str, engine: sa.Engine
) -> None:
    expected = Recommender(engine, "retail")

    async def ask() -> None:
        async with engine_of(url) as asynchronous, bind_of(asynchronous) as bind:
            retail = AsyncRecommender(bind, "retail")
            for name, arguments, options in ASKED:
                answer = await getattr(retail, name)(*arguments, **options)
                assert answer == getattr(expected, name)(*arguments, **options), name
                if isinstance(answer, list):
                    assert len(answer) in (3, 5)
                    assert type(answer[0]).__module__ == "recstore.recommend"  # a typed row
            assert np.array_equal(await retail.user_vector(1), expected.user_vector(1))

    asyncio.run(ask())


@pytest.mark.parametrize("bind_of", [sa.Engine.begin, Session, lambda engine: scoped_session(sessionmaker(engine))])
def test_synchronous_rows_are_the_same_over_every_bind(bind_of: Callable[[sa.Engine], Any], engine: sa.Engine) -> None:
    bind = bind_of(engine)
    if isinstance(bind, scoped_session):
        found = Recommender(bind, "retail").recommend(1, 5)
        bind.remove()
    else:
        with bind as opened:
            found = Recommender(opened, "retail").recommend(1, 5)
    assert found == Recommender(engine, "retail").recommend(1, 5)


def test_other_binds_are_refused_with_a_sentence(url: str, engine: sa.Engine, shared: Database) -> None:
    with pytest.raises(TypeError, match=r"takes an AsyncEngine, .*; this one is synchronous, for Recommender"):
        AsyncRecommender(engine, "retail")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="this one is asynchronous, for AsyncRecommender"):
        Recommender(create_async_engine(url), "retail")  # type: ignore[arg-type]
    with (
        psycopg.connect(shared.url) as driver,
        pytest.raises(TypeError, match=r"^psycopg\.Connection: a Recommender takes an Engine"),
    ):
        Recommender(driver, "retail")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"async_sessionmaker: an AsyncRecommender takes .* or an AsyncSession$"):
        AsyncRecommender(async_sessionmaker(), "retail")  # type: ignore[arg-type]


def test_both_have_the_same_methods() -> None:
    methods = {name for name, value in vars(Recommender).items() if isfunction(value) and name[0] != "_"}
    assert len(methods) >= 9
    for name in methods:
        method, twin = getattr(Recommender, name), getattr(AsyncRecommender, name)
        assert iscoroutinefunction(twin), name
        assert twin.__doc__, name
        assert [str(p) for p in signature(twin).parameters.values()] == [
            str(p) for p in signature(method).parameters.values()
        ]


def test_every_public_function_and_view_of_sql_is_there() -> None:
    retail = Selectables("retail")
    functions, of_people, views = (
        [name.split()[1] for name in queries.load(f"objects/{file}.sql") if not name.split()[1].startswith("_")]
        for file in ("functions", "people", "views")
    )
    functions += of_people
    assert len(functions) >= 9
    assert len(views) >= 4
    assert [name for name in functions if not hasattr(Recommender, name)] == []
    assert [name for name in views if not isinstance(getattr(retail, name, None), sa.TableClause)] == []
