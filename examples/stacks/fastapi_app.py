"""FastAPI: recommendations in the request's own transaction.

DATABASE_URL=postgresql://.. uvicorn examples.stacks.fastapi_app:app
"""

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Query
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from recstore import AsyncRecommender

# your framework's pool or PgBouncer may take the place of NullPool
engine = create_async_engine(os.environ["DATABASE_URL"].replace("://", "+psycopg://", 1), poolclass=NullPool)
sessions = async_sessionmaker(engine)
app = FastAPI()

products = sa.table("products", sa.column("product_id"), sa.column("title"), schema="shop")


async def transaction() -> AsyncIterator[AsyncSession]:
    """Give a request one transaction."""
    async with sessions.begin() as session:
        yield session


Session = Annotated[AsyncSession, Depends(transaction)]


async def titled(session: AsyncSession, listed: sa.TableValuedAlias) -> list[dict[str, Any]]:
    """Return a list with the titles of the application's own table."""
    statement = (
        sa.select(listed, products.c.title)
        .join_from(listed, products, products.c.product_id == listed.c.item_id)
        .order_by(listed.c.score.desc())
    )
    return [dict(row) for row in (await session.execute(statement)).mappings()]


@app.get("/recommend/{user}")
async def recommend(user: int, session: Session) -> list[dict[str, Any]]:
    """Recommend to a user."""
    return await titled(session, AsyncRecommender(session, "retail").select_recommend(user, k=5))


@app.get("/search/{user}")
async def search(user: int, words: str, session: Session) -> list[dict[str, Any]]:
    """List what the application's own query finds, in the user's order."""
    found = sa.select(products.c.product_id).where(products.c.title.contains(words, autoescape=True))
    items = list((await session.execute(found)).scalars())
    ranked = await titled(session, AsyncRecommender(session, "retail").select_rank_items(user, items))
    return [row for row in ranked if row["score"] is not None][:5]


@app.get("/basket")
async def basket(item: Annotated[list[int], Query()], session: Session) -> list[dict[str, Any]]:
    """Recommend for a basket, without a user."""
    return await titled(session, AsyncRecommender(session, "retail").select_recommend_for_items(item, k=5))


@app.post("/view/{user}/{product}")
async def view(user: int, product: int, session: Session) -> list[dict[str, Any]]:
    """Store a view, and recommend to the user, who may be new, in the same transaction."""
    insert = "INSERT INTO shop.views (user_id, product_id, view_count) VALUES (:user, :product, 1)"
    await session.execute(sa.text(insert), {"user": user, "product": product})
    return await recommend(user, session)
