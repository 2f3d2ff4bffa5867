"""A recommender's views and functions as parts of a SQLAlchemy `select()`: what `Recommender` and `AsyncRecommender` share.

Nothing is executed here.
"""

from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR

Id = Any
"""The application's id type: int, uuid.UUID or str."""


def untyped(value: Id) -> sa.BindParameter[Any]:
    """A parameter without a cast, so that the function's own type decides: a uuid may come as a string."""
    return sa.bindparam(None, value, type_=sa.types.NullType(), unique=True)


class _Functions:
    """The functions of a schema, whatever its name: `sa.func` takes an underscore off its end, and `opts` for its own."""

    def __init__(self, schema: str) -> None:
        self._schema = schema

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: sa.Function(name, *arguments, packagenames=(self._schema,))


class Selectables:
    """The views `item_vectors`, `user_vectors`, `candidates` and `interactions` as tables, and the functions as FROM elements:

    listed = retail.select_recommend(42, 10)
    select(listed.c.item_id, products.c.title).join(products, products.c.product_id == listed.c.item_id)
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._functions = _Functions(name)
        self.item_vectors = sa.table(
            "item_vectors",
            sa.column("item_id"),
            sa.column("embedding", VECTOR),
            sa.column("preference", VECTOR),
            sa.column("length", sa.Double),
            sa.column("users", sa.Integer),
            sa.column("views", sa.Double),
            schema=name,
        )
        self.user_vectors = sa.table(
            "user_vectors",
            sa.column("user_id"),
            sa.column("preference", VECTOR),
            sa.column("length", sa.Double),
            schema=name,
        )
        self.candidates = sa.table("candidates", sa.column("item_id"), schema=name)
        self.interactions = sa.table(
            "interactions", sa.column("user_id"), sa.column("item_id"), sa.column("value"), schema=name
        )

    def select_recommend(self, user_id: Id, k: int = 10, *, exclude_seen: bool = True) -> sa.TableValuedAlias:
        """`recommend` as a FROM element with columns item_id, score, reason."""
        return self._functions.recommend(untyped(user_id), k, exclude_seen).table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("score", sa.Double), sa.column("reason", sa.Text), name="recommended"
        )

    def select_similar_items(self, item_id: Id, k: int = 10, *, min_users: int = 3) -> sa.TableValuedAlias:
        """`similar_items` as a FROM element with columns item_id, score."""
        return self._functions.similar_items(untyped(item_id), k, min_users).table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("score", sa.Double), name="similar"
        )

    def select_similar_users(self, user_id: Id, k: int = 10) -> sa.TableValuedAlias:
        """`similar_users` as a FROM element with columns user_id, score."""
        return self._functions.similar_users(untyped(user_id), k).table_valued(  # type: ignore[no-any-return]
            "user_id", sa.column("score", sa.Double), name="similar"
        )

    def select_users_for_item(self, item_id: Id, k: int = 10) -> sa.TableValuedAlias:
        """`users_for_item` as a FROM element with columns user_id, score, preference."""
        return self._functions.users_for_item(untyped(item_id), k).table_valued(  # type: ignore[no-any-return]
            "user_id", sa.column("score", sa.Double), sa.column("preference", sa.Double), name="audience"
        )

    def select_popular_items(self, k: int = 10) -> sa.TableValuedAlias:
        """`popular_items` as a FROM element with columns item_id, users, views."""
        return self._functions.popular_items(k).table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("users", sa.Integer), sa.column("views", sa.Double), name="popular"
        )

    def select_user_vector(self, user_id: Id) -> sa.ScalarSelect[Any]:
        """The query vector as a sub-select, for ORDER BY item_vectors.preference.max_inner_product(..): evaluated once."""
        return sa.select(sa.type_coerce(self._functions.user_vector(untyped(user_id)), VECTOR)).scalar_subquery()
