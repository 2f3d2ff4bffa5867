"""Flask: recommendations over the session that the application has.

DATABASE_URL=postgresql://.. flask --app examples.stacks.flask_app run
"""

import os
from typing import Any

import sqlalchemy as sa
from flask import Flask, request
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from recstore import Recommender

engine = sa.create_engine(os.environ["DATABASE_URL"].replace("://", "+psycopg://", 1), poolclass=NullPool)
session = scoped_session(sessionmaker(engine))  # Flask-SQLAlchemy's db.session is one
retail = Recommender(session, "retail")
app = Flask(__name__)

products = sa.table("products", sa.column("product_id"), sa.column("title"), schema="shop")


@app.teardown_appcontext
def close(_: BaseException | None) -> None:
    """End the request's transaction."""
    session.remove()


def titled(listed: sa.TableValuedAlias) -> list[dict[str, Any]]:
    """Return a list with the titles of the application's own table."""
    statement = (
        sa.select(listed, products.c.title)
        .join_from(listed, products, products.c.product_id == listed.c.item_id)
        .order_by(listed.c.score.desc())
    )
    return [dict(row) for row in session.execute(statement).mappings()]


@app.get("/recommend/<int:user>")
def recommend(user: int) -> list[dict[str, Any]]:
    """Recommend to a user."""
    return titled(retail.select_recommend(user, k=5))


@app.get("/search/<int:user>")
def search(user: int) -> list[dict[str, Any]]:
    """List what the application's own query finds, in the user's order."""
    words = request.args["words"]
    found = sa.select(products.c.product_id).where(products.c.title.contains(words, autoescape=True))
    ranked = titled(retail.select_rank_items(user, list(session.scalars(found))))
    return [row for row in ranked if row["score"] is not None][:5]


@app.get("/basket")
def basket() -> list[dict[str, Any]]:
    """Recommend for a basket, without a user."""
    return titled(retail.select_recommend_for_items(request.args.getlist("item", type=int), k=5))


@app.post("/view/<int:user>/<int:product>")
def view(user: int, product: int) -> list[dict[str, Any]]:
    """Store a view, and recommend to the user, who may be new, in the same transaction."""
    insert = "INSERT INTO shop.views (user_id, product_id, view_count) VALUES (:user, :product, 1)"
    session.execute(sa.text(insert), {"user": user, "product": product})
    recommended = recommend(user)
    session.commit()
    return recommended
