"""The read side for Python applications: the SQL functions as methods, the views as selectables.

Everything runs on the application's own SQLAlchemy engine, connection or session, with its transactions and its rights. Knows
nothing about training.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar
from uuid import UUID

import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from recstore.errors import installed_parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Id = Any
"""The application's id type: int, uuid.UUID or str."""

Period = timedelta | str
"""An interval, such as timedelta(days=7) or "7 days"."""


Scale = Literal["unit", "rank"]
"""Scores relative to those of all items for the same user: from 0 to 1, or the place from 1 on."""


def untyped(value: Any) -> sa.BindParameter[Any]:
    """Return a parameter without a cast, so that the function's type applies: a uuid may be passed as a string."""
    return sa.bindparam(None, value, type_=sa.types.NullType(), unique=True)


def array(values: Iterable[Id] | None) -> sa.ColumnElement[Any] | None:
    """Return ids or weights as a parameter of an array type: uuid if one is a UUID, double precision if one is a fraction."""
    if values is None:
        return None
    listed = [getattr(value, "item", lambda value=value: value)() for value in values]  # NumPy's as Python's
    kinds = {type(value) for value in listed if value is not None}
    if not kinds:  # as a literal, which fits any type
        return sa.literal_column(f"'{{{','.join(['NULL'] * len(listed))}}}'")
    kind: Any = sa.Text if str in kinds else sa.BigInteger
    convert: Callable[[Any], Any] | None = None
    if UUID in kinds:
        kind, convert = sa.Uuid, lambda value: UUID(str(value))
    elif not kinds <= {int, str}:
        kind, convert = sa.Double, float
    if convert:
        listed = [value if value is None else convert(value) for value in listed]
    return sa.bindparam(None, listed, type_=sa.ARRAY(kind), unique=True)


class _Functions:
    """The functions of a schema of any name. `sa.func` would strip a trailing underscore and reserve `opts`. Parameters that are
    passed by name are left out where they are None."""

    def __init__(self, schema: str) -> None:
        self._schema = schema

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> sa.Function[Any]:
            given = [sa.literal_column(each).op("=>")(value) for each, value in named.items() if value is not None]
            return sa.Function(name, *arguments, *given, packagenames=(self._schema,))

        return call


class Selectables:
    """The views `item_vectors`, `user_vectors`, `candidates`, `exclusions` and `interactions` as tables, and the functions as
    FROM elements:

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
        self.exclusions = sa.table("exclusions", sa.column("user_id"), sa.column("item_id"), schema=name)
        self.interactions = sa.table(
            "interactions", sa.column("user_id"), sa.column("item_id"), sa.column("value"), schema=name
        )

    def select_recommend(
        self,
        user_id: Id,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        exclude_items: Iterable[Id] | None = None,
        fresh: bool | None = None,
        scale: Scale | None = None,
    ) -> sa.TableValuedAlias:
        """Return `recommend` as a FROM element with columns item_id, score, reason."""
        function = self._functions.recommend(
            untyped(user_id), k, exclude_seen, exclude_items=array(exclude_items), fresh=fresh, scale=scale
        )
        return function.table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("score", sa.Double), sa.column("reason", sa.Text), name="recommended"
        )

    def select_recommend_for_items(
        self,
        item_ids: Iterable[Id],
        weights: Iterable[float] | None = None,
        k: int = 10,
        *,
        exclude_items: Iterable[Id] | None = None,
        scale: Scale | None = None,
    ) -> sa.TableValuedAlias:
        """Return `recommend_for_items` as a FROM element with columns item_id, score, reason."""
        function = self._functions.recommend_for_items(
            array(item_ids), k=k, weights=array(weights), exclude_items=array(exclude_items), scale=scale
        )
        return function.table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("score", sa.Double), sa.column("reason", sa.Text), name="recommended"
        )

    def select_rank_items(
        self, user_id: Id, item_ids: Iterable[Id], *, scale: Scale | None = None
    ) -> sa.TableValuedAlias:
        """Return `rank_items` as a FROM element with columns item_id, score, reason."""
        return self._functions.rank_items(untyped(user_id), array(item_ids), scale=scale).table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("score", sa.Double), sa.column("reason", sa.Text), name="ranked"
        )

    def select_similar_items(
        self, item_id: Id, k: int = 10, *, min_users: int = 3, exclude_items: Iterable[Id] | None = None
    ) -> sa.TableValuedAlias:
        """Return `similar_items` as a FROM element with columns item_id, score."""
        function = self._functions.similar_items(untyped(item_id), k, min_users, exclude_items=array(exclude_items))
        return function.table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("score", sa.Double), name="similar"
        )

    def select_similar_users(self, user_id: Id, k: int = 10, *, fresh: bool | None = None) -> sa.TableValuedAlias:
        """Return `similar_users` as a FROM element with columns user_id, score."""
        return self._functions.similar_users(untyped(user_id), k, fresh).table_valued(  # type: ignore[no-any-return]
            "user_id", sa.column("score", sa.Double), name="similar"
        )

    def select_users_for_item(self, item_id: Id, k: int = 10) -> sa.TableValuedAlias:
        """Return `users_for_item` as a FROM element with columns user_id, score, preference."""
        return self._functions.users_for_item(untyped(item_id), k).table_valued(  # type: ignore[no-any-return]
            "user_id", sa.column("score", sa.Double), sa.column("preference", sa.Double), name="audience"
        )

    def select_explain(self, user_id: Id, item_id: Id, k: int = 10) -> sa.TableValuedAlias:
        """Return `explain` as a FROM element with columns item_id, value, contribution."""
        return self._functions.explain(untyped(user_id), untyped(item_id), k).table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("value", sa.Double), sa.column("contribution", sa.Double), name="explained"
        )

    def select_popular_items(
        self,
        k: int = 10,
        window: Period | None = None,
        half_life: Period | None = None,
        *,
        exclude_items: Iterable[Id] | None = None,
    ) -> sa.TableValuedAlias:
        """Return `popular_items` as a FROM element with columns item_id, users, views."""
        since = untyped(window), untyped(half_life)
        return self._functions.popular_items(k, *since, array(exclude_items)).table_valued(  # type: ignore[no-any-return]
            "item_id", sa.column("users", sa.Integer), sa.column("views", sa.Double), name="popular"
        )

    def select_user_vector(self, user_id: Id, *, fresh: bool | None = None) -> sa.ScalarSelect[Any]:
        """Return the query vector as a subquery, evaluated once, for item_vectors.preference.max_inner_product(...)."""
        vector = self._functions.user_vector(untyped(user_id), fresh)
        return sa.select(sa.type_coerce(vector, VECTOR)).scalar_subquery()


Bind = sa.Engine | sa.Connection | Session | scoped_session[Any]
AsyncBind = AsyncEngine | AsyncConnection | AsyncSession | async_scoped_session[Any]
_BINDS = (sa.Engine, sa.Connection, Session, scoped_session)
_ASYNC_BINDS = (AsyncEngine, AsyncConnection, AsyncSession, async_scoped_session)

P = ParamSpec("P")
R = TypeVar("R")


class Recommendation(NamedTuple):
    """An item with its predicted preference; `reason` is "trained", "fold_in" for a user who came after the
    training, or the step of the fallback that gave it, with a score of its own: "popular", "trending", "query"."""

    item_id: Id
    score: float
    reason: str


class RankedItem(NamedTuple):
    """A given item with its predicted preference and the reason, both None for an unknown item."""

    item_id: Id
    score: float | None
    reason: str | None


class SimilarItem(NamedTuple):
    """An item with its cosine similarity."""

    item_id: Id
    score: float


class SimilarUser(NamedTuple):
    """A user with the cosine similarity of preferences."""

    user_id: Id
    score: float


class AudienceMember(NamedTuple):
    """A user ranked by `score`, with the predicted preference for the item."""

    user_id: Id
    score: float
    preference: float


class Explanation(NamedTuple):
    """An item of the user, the value of the interaction, and its part of the predicted preference for another item."""

    item_id: Id
    value: float
    contribution: float


class PopularItem(NamedTuple):
    """An item with its distinct users and total views."""

    item_id: Id
    users: int
    views: float


def _check(bind: object, accepted: tuple[type, ...], takes: str) -> None:
    if isinstance(bind, accepted):
        return
    if isinstance(bind, _BINDS):
        takes += "; this one is synchronous, for Recommender"
    elif isinstance(bind, _ASYNC_BINDS):
        takes += "; this one is asynchronous, for AsyncRecommender"
    raise TypeError(f"{type(bind).__module__}.{type(bind).__qualname__}: {takes}")


class Recommender(Selectables):
    """The live generation of one recommender, over an engine, a connection or a session (also a scoped one).

        retail = Recommender(engine, "retail")
        for item in retail.recommend(42, k=5): ...

    With an engine, each call is a transaction; with a connection or session, it joins the caller's. For use in a `select()`,
    the methods `select_*` return the functions as FROM elements, and `item_vectors`, `user_vectors`, `candidates`, `exclusions`
    and `interactions` are the views. Errors are those of the driver (`sqlalchemy.exc.DBAPIError`). Raises TypeError for any
    other bind.
    """

    def __init__(self, bind: Bind, name: str) -> None:
        _check(bind, _BINDS, "a Recommender takes an Engine, a Connection or a Session of SQLAlchemy")
        super().__init__(name)
        self.bind = bind

    def _rows(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        if isinstance(self.bind, sa.Engine):
            with self.bind.begin() as connection:
                return connection.execute(statement).all()
        return self.bind.execute(statement).all()

    def _value(self, function: sa.ColumnElement[Any]) -> Any:
        return self._rows(sa.select(function))[0][0]

    def recommend(
        self,
        user_id: Id,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        exclude_items: Iterable[Id] | None = None,
        fresh: bool | None = None,
        scale: Scale | None = None,
    ) -> list[Recommendation]:
        """Return the k items with the highest predicted preference, best first, ties by id; those of the fallback for a
        user without usable interactions.

        With `fresh`, a known user's current interactions count, too; None is the recommender's setting. With `scale` scores
        are relative to those of all items for this user: "unit" from 0 to 1, "rank" from 1, the best, on. That compares all
        items, and leaves the scores of the fallback as they are."""
        listed = self.select_recommend(
            user_id, k, exclude_seen=exclude_seen, exclude_items=exclude_items, fresh=fresh, scale=scale
        )
        return [Recommendation._make(row) for row in self._rows(sa.select(listed))]

    def recommend_for_items(
        self,
        item_ids: Iterable[Id],
        weights: Iterable[float] | None = None,
        k: int = 10,
        *,
        exclude_items: Iterable[Id] | None = None,
        scale: Scale | None = None,
    ) -> list[Recommendation]:
        """Return the k items for a person who likes these, or dislikes those with a weight below 0, without these; popular ones
        if no liked item is known. See `recommend` for `scale`."""
        asked = self.select_recommend_for_items(item_ids, weights, k, exclude_items=exclude_items, scale=scale)
        return [Recommendation._make(row) for row in self._rows(sa.select(asked))]

    def rank_items(self, user_id: Id, item_ids: Iterable[Id], *, scale: Scale | None = None) -> list[RankedItem]:
        """Return these items, each once, in the user's order; unknown ones last, in the given order. See `recommend` for
        `scale`."""
        listed = self.select_rank_items(user_id, item_ids, scale=scale)
        return [RankedItem._make(row) for row in self._rows(sa.select(listed))]

    def seen(self, user_id: Id) -> list[Id]:
        """Return the items that the user has seen, which `recommend` leaves out; an id may come twice."""
        return [row[0] for row in self._rows(sa.select(self._functions.seen(untyped(user_id))))]

    def similar_items(
        self, item_id: Id, k: int = 10, *, min_users: int = 3, exclude_items: Iterable[Id] | None = None
    ) -> list[SimilarItem]:
        """Return the k items most similar by cosine, among those with at least `min_users` users; none for an unknown item."""
        asked = self.select_similar_items(item_id, k, min_users=min_users, exclude_items=exclude_items)
        return [SimilarItem._make(row) for row in self._rows(sa.select(asked))]

    def similar_users(self, user_id: Id, k: int = 10, *, fresh: bool | None = None) -> list[SimilarUser]:
        """Return the k users with the most similar preferences; none for a user without
        usable interactions. See `recommend` for `fresh`."""
        listed = self.select_similar_users(user_id, k, fresh=fresh)
        return [SimilarUser._make(row) for row in self._rows(sa.select(listed))]

    def users_for_item(self, item_id: Id, k: int = 10) -> list[AudienceMember]:
        """Return the k users with the highest score for an item; none for an unknown item."""
        return [AudienceMember._make(row) for row in self._rows(sa.select(self.select_users_for_item(item_id, k)))]

    def explain(self, user_id: Id, item_id: Id, k: int = 10) -> list[Explanation]:
        """Return the k interactions that contribute most to the predicted preference, from current rows; none for an unknown
        item, or for a user without usable interactions."""
        return [Explanation._make(row) for row in self._rows(sa.select(self.select_explain(user_id, item_id, k)))]

    def popular_items(
        self,
        k: int = 10,
        window: Period | None = None,
        half_life: Period | None = None,
        *,
        exclude_items: Iterable[Id] | None = None,
    ) -> list[PopularItem]:
        """Return the k items with the most users; ties go to more views, then to the lower id.

        In the training snapshot, or, with a window or a half-life, in the source now. With a half-life each user counts
        2^(-age / half_life), and `views` is their sum."""
        asked = self.select_popular_items(k, window, half_life, exclude_items=exclude_items)
        return [PopularItem._make(row) for row in self._rows(sa.select(asked))]

    def predict(
        self, user_id: Id, item_id: Id, *, fresh: bool | None = None, scale: Scale | None = None
    ) -> float | None:
        """Return the predicted preference; None for an unknown item or a user without usable interactions.

        See `recommend` for `fresh` and `scale`."""
        value: float | None = self._value(
            self._functions.predict(untyped(user_id), untyped(item_id), fresh, scale=scale)
        )
        return value

    def user_vector(self, user_id: Id, *, fresh: bool | None = None) -> "NDArray[np.float32]":
        """Return the user's query vector, float32 (dimensions,); the mean user direction without usable
        interactions.

        See `recommend` for `fresh`."""
        value = self._value(sa.cast(self._functions.user_vector(untyped(user_id), fresh), sa.ARRAY(sa.REAL)))
        with installed_parts():
            import numpy as np  # 70 MB, for this method alone
        return np.asarray(value, dtype=np.float32)

    def forget_user(self, user_id: Id) -> int:
        """Remove a user from every kept generation and from the lists of all users; return the number of rows removed."""
        value: int = self._value(self._functions.forget_user(untyped(user_id)))
        return value

    def generation(self) -> int | None:
        """Return the number of the live generation; None before the first publication."""
        value: int | None = self._value(self._functions.generation())
        return value

    def use_search_settings(self) -> None:
        """Set, for the rest of the transaction, the parameters that pgvector needs for a query on the views.

        Raises TypeError with an engine, whose next query would run in another transaction."""
        if isinstance(self.bind, sa.Engine):
            raise TypeError(
                "use_search_settings() lasts for one transaction: give Recommender a connection or a session"
            )
        self._rows(sa.select(self._functions.use_search_settings()))


def _awaited(
    method: Callable[Concatenate[Recommender, P], R],
) -> Callable[Concatenate["AsyncRecommender", P], Coroutine[Any, Any, R]]:
    """Return a coroutine method that runs a method of Recommender on an asynchronous connection."""

    @wraps(method)
    async def call(self: "AsyncRecommender", /, *arguments: P.args, **options: P.kwargs) -> R:
        return await self._run(lambda bind: method(Recommender(bind, self.name), *arguments, **options))

    return call


class AsyncRecommender(Selectables):
    """`Recommender` over an AsyncEngine, AsyncConnection or AsyncSession (also a scoped one): the same methods, awaited.

    retail = AsyncRecommender(engine, "retail")
    for item in await retail.recommend(42, k=5): ...
    """

    def __init__(self, bind: AsyncBind, name: str) -> None:
        _check(bind, _ASYNC_BINDS, "an AsyncRecommender takes an AsyncEngine, an AsyncConnection or an AsyncSession")
        super().__init__(name)
        self.bind = bind

    async def _run(self, ask: Callable[[sa.Connection | Session], R]) -> R:
        if isinstance(self.bind, AsyncEngine):
            async with self.bind.begin() as connection:
                return await connection.run_sync(ask)
        if isinstance(self.bind, async_scoped_session):
            return await self.bind().run_sync(ask)  # type: ignore[no-any-return]
        return await self.bind.run_sync(ask)

    recommend = _awaited(Recommender.recommend)
    seen = _awaited(Recommender.seen)
    recommend_for_items = _awaited(Recommender.recommend_for_items)
    rank_items = _awaited(Recommender.rank_items)
    similar_items = _awaited(Recommender.similar_items)
    similar_users = _awaited(Recommender.similar_users)
    users_for_item = _awaited(Recommender.users_for_item)
    explain = _awaited(Recommender.explain)
    popular_items = _awaited(Recommender.popular_items)
    predict = _awaited(Recommender.predict)
    user_vector = _awaited(Recommender.user_vector)
    forget_user = _awaited(Recommender.forget_user)
    generation = _awaited(Recommender.generation)
    _use_search_settings = _awaited(Recommender.use_search_settings)

    async def use_search_settings(self) -> None:
        """See `Recommender.use_search_settings`. Raises TypeError with an AsyncEngine."""
        if isinstance(self.bind, AsyncEngine):
            raise TypeError(
                "use_search_settings() lasts for one transaction: give AsyncRecommender a connection or a session"
            )
        await self._use_search_settings()
