"""The read side for Python applications: the SQL functions as methods, the views as selectables.

Everything runs on the application's own SQLAlchemy engine, connection or session, in its own transaction, with its own
rights. Knows nothing of how vectors came about.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.orm import Session

Id = Any
"""The application's id type: int, uuid.UUID or str."""


def _untyped(value: Id) -> sa.BindParameter[Any]:
    """A parameter without a cast, so that the function's own type decides: a uuid may come as a string."""
    return sa.bindparam(None, value, type_=sa.types.NullType(), unique=True)


class Recommendation(NamedTuple):
    """An item with its predicted preference; `reason` is "trained", or "popular" for an unknown user."""

    item_id: Id
    score: float
    reason: str


class SimilarItem(NamedTuple):
    """An item with its cosine similarity."""

    item_id: Id
    score: float


class SimilarUser(NamedTuple):
    """A user with the cosine similarity of tastes."""

    user_id: Id
    score: float


class AudienceMember(NamedTuple):
    """A user ranked by `score`, with the predicted preference for the item beside it."""

    user_id: Id
    score: float
    preference: float


class PopularItem(NamedTuple):
    """An item with its distinct users and total views."""

    item_id: Id
    users: int
    views: float


class Recommender:
    """The live generation of one recommender, over an engine, a connection or a session.

        retail = Recommender(engine, "retail")
        for item in retail.recommend(42, k=5): ...

    With an engine each call is a transaction of its own; with a connection or session it joins the caller's. To compose
    in a `select()`: the methods `select_*` give the functions as FROM elements, `item_vectors`, `user_vectors` and
    `interactions` are the views. Errors are the driver's own (`sqlalchemy.exc.DBAPIError`).
    """

    def __init__(self, bind: sa.Engine | sa.Connection | Session, name: str) -> None:
        self.bind, self.name = bind, name
        self._functions = getattr(sa.func, name)
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
        self.interactions = sa.table(
            "interactions", sa.column("user_id"), sa.column("item_id"), sa.column("value"), schema=name
        )

    def _rows(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        if isinstance(self.bind, sa.Engine):
            with self.bind.begin() as connection:
                return connection.execute(statement).all()
        return self.bind.execute(statement).all()

    def _value(self, function: sa.ColumnElement[Any]) -> Any:
        return self._rows(sa.select(function))[0][0]

    def recommend(self, user_id: Id, k: int = 10, *, exclude_seen: bool = True) -> list[Recommendation]:
        """The k items with the highest predicted preference, best first, ties by id; popular ones for an unknown user."""
        return [
            Recommendation._make(row)
            for row in self._rows(sa.select(self.select_recommend(user_id, k, exclude_seen=exclude_seen)))
        ]

    def similar_items(self, item_id: Id, k: int = 10, *, min_users: int = 3) -> list[SimilarItem]:
        """The k items most similar by cosine, among those with at least `min_users` users; none for an unknown item."""
        return [
            SimilarItem._make(row)
            for row in self._rows(sa.select(self.select_similar_items(item_id, k, min_users=min_users)))
        ]

    def similar_users(self, user_id: Id, k: int = 10) -> list[SimilarUser]:
        """The k users with the most similar tastes; none for an unknown user."""
        return [SimilarUser._make(row) for row in self._rows(sa.select(self.select_similar_users(user_id, k)))]

    def users_for_item(self, item_id: Id, k: int = 10) -> list[AudienceMember]:
        """The k users most inclined to an item; none for an unknown item."""
        return [AudienceMember._make(row) for row in self._rows(sa.select(self.select_users_for_item(item_id, k)))]

    def popular_items(self, k: int = 10) -> list[PopularItem]:
        """The k items with most distinct users, then most views, then by id."""
        return [PopularItem._make(row) for row in self._rows(sa.select(self.select_popular_items(k)))]

    def predict(self, user_id: Id, item_id: Id) -> float | None:
        """The predicted preference; None where either is unknown."""
        value: float | None = self._value(self._functions.predict(_untyped(user_id), _untyped(item_id)))
        return value

    def user_vector(self, user_id: Id) -> NDArray[np.float32]:
        """The user's query vector, float32 (dimensions,); the mean user direction for an unknown user."""
        value = self._value(sa.cast(self._functions.user_vector(_untyped(user_id)), sa.ARRAY(sa.REAL)))
        return np.asarray(value, dtype=np.float32)

    def generation(self) -> int | None:
        """Number of the live generation; None before the first publication."""
        value: int | None = self._value(self._functions.generation())
        return value

    def use_search_settings(self) -> None:
        """Sets, until the caller's transaction ends, what pgvector needs for a query written on the views; only with a
        connection or a session. Raises TypeError with an engine, whose next query would be another transaction."""
        if isinstance(self.bind, sa.Engine):
            raise TypeError(
                "use_search_settings() lasts for one transaction: give Recommender a connection or a session"
            )
        self._rows(sa.select(self._functions.use_search_settings()))

    def select_recommend(self, user_id: Id, k: int = 10, *, exclude_seen: bool = True) -> sa.TableValuedAlias:
        """`recommend` as a FROM element with columns item_id, score, reason."""
        return self._functions.recommend(_untyped(user_id), k, exclude_seen).table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("score", sa.Double), sa.column("reason", sa.Text), name="recommended"
        )

    def select_similar_items(self, item_id: Id, k: int = 10, *, min_users: int = 3) -> sa.TableValuedAlias:
        """`similar_items` as a FROM element with columns item_id, score."""
        return self._functions.similar_items(_untyped(item_id), k, min_users).table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("score", sa.Double), name="similar"
        )

    def select_similar_users(self, user_id: Id, k: int = 10) -> sa.TableValuedAlias:
        """`similar_users` as a FROM element with columns user_id, score."""
        return self._functions.similar_users(_untyped(user_id), k).table_valued(  # type: ignore[no-any-return]
            "user_id", sa.column("score", sa.Double), name="similar"
        )

    def select_users_for_item(self, item_id: Id, k: int = 10) -> sa.TableValuedAlias:
        """`users_for_item` as a FROM element with columns user_id, score, preference."""
        return self._functions.users_for_item(_untyped(item_id), k).table_valued(  # type: ignore[no-any-return]
            "user_id", sa.column("score", sa.Double), sa.column("preference", sa.Double), name="audience"
        )

    def select_popular_items(self, k: int = 10) -> sa.TableValuedAlias:
        """`popular_items` as a FROM element with columns item_id, users, views."""
        return self._functions.popular_items(k).table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("users", sa.Integer), sa.column("views", sa.Double), name="popular"
        )

    def select_user_vector(self, user_id: Id) -> sa.ScalarSelect[Any]:
        """The query vector as a sub-select, for ORDER BY item_vectors.preference.max_inner_product(..): evaluated once."""
        return sa.select(sa.type_coerce(self._functions.user_vector(_untyped(user_id)), VECTOR)).scalar_subquery()
