"""The asynchronous read side gives the rows of the synchronous one, over whatever an application has."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import iscoroutinefunction, isfunction, signature
from typing import Any

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
from test_recommend import ASKED

from recstore import AsyncRecommender, Recommender
from recstore.recommend import Selectables
from recstore.sql import queries


@pytest.fixture(scope="module")
def url(shared: Database) -> str:
    return shared.url.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


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
        rows = Recommender(bind, "retail").recommend(1, 5)
        bind.remove()
    else:
        with bind as opened:
            rows = Recommender(opened, "retail").recommend(1, 5)
    assert rows == Recommender(engine, "retail").recommend(1, 5)


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
    functions, views = (
        [name.split()[1] for name in queries.load(f"objects/{file}.sql") if not name.split()[1].startswith("_")]
        for file in ("functions", "views")
    )
    assert len(functions) >= 9
    assert len(views) >= 4
    assert [name for name in functions if not hasattr(Recommender, name)] == []
    assert [name for name in views if not isinstance(getattr(retail, name, None), sa.TableClause)] == []
