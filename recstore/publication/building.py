"""A generation from its vectors: loaded, indexed, calibrated, checked, ready. What a run does between training and flip."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from recstore.definition import Definition
from recstore.model.interactions import IdMap, Interactions
from recstore.model.vectors import ItemVectors, UserVectors
from recstore.publication import calibration, checks, generations, indexes, loading
from recstore.publication.calibration import Kind, Query, recommending
from recstore.publication.loading import Ids, Scalars, Vectors
from recstore.runs import Run
from recstore.sql import objects, queries


@dataclass(frozen=True, eq=False)
class Population:
    """Whom and what a generation is about, whatever its vectors: ids, popularity, and what users have seen."""

    users: IdMap
    items: IdMap
    item_users: NDArray[np.int64]  # (items,), distinct users
    item_views: NDArray[np.float64]  # (items,)
    seen: Callable[[NDArray[np.int64]], Sequence[list[Any]]]
    """The ids of the items that each user at these positions has seen; calibration leaves them out."""

    @classmethod
    def of(cls, interactions: Interactions) -> Self:
        """That of a training."""
        users, items = interactions.users, interactions.items
        starts = np.searchsorted(interactions.user_index, np.arange(len(users) + 1))

        def seen(positions: NDArray[np.int64]) -> list[list[Any]]:
            return [_ids(items, interactions.item_index[starts[user] : starts[user + 1]]) for user in positions]

        return cls(
            users=users,
            items=items,
            item_users=np.bincount(interactions.item_index, minlength=len(items)),
            item_views=np.bincount(interactions.item_index, interactions.values, len(items)).astype(np.float64),
            seen=seen,
        )


@dataclass(frozen=True, eq=False)
class Content:
    """Everything a generation is made of; `pulled` are the interactions before the filters, whose pairs are published where
    the definition has seen items published."""

    population: Population
    pulled: Interactions | None
    items: ItemVectors
    users: UserVectors
    factors: int
    snapshot: dict[str, Any]
    filters: list[dict[str, Any]]
    confidence: dict[str, Any]
    training: dict[str, Any]
    fold_in: dict[str, Any] | None = None
    held_out: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    definition: Definition | None = None
    """What it was trained by, where that is not the recommender's."""
    trained_users: int | None = None
    """How many it was trained on, where not all of them are in `population`."""
    mean_preference: NDArray[np.float32] | None = None
    """The mean user direction, where it is not that of `users`."""


def build(run: Run, generation: int, content: Content) -> None:
    """Fills the attached generation and makes it `ready`. Each step is a stage that commits by itself."""
    with run.stage("load") as details:
        details |= _load(run, generation, content)
    with run.stage("index") as details:
        seen = run.recommender.definition.source.seen == "published"
        indexes.index_lookups(run.connection, run.recommender, generation, seen=seen)
        _analyze(run, generation)
        details["tables"] = ["items", "users"] + ["seen"] * seen
    with run.stage("calibrate") as details:
        plans = _calibrate(run, generation, content)
        details |= plans
    with run.stage("check") as details:
        details |= checks.check(
            run.connection,
            run.recommender,
            generation,
            users=len(content.population.users),
            items=len(content.population.items),
            collapsed=_collapsed(content),
            indexes=indexes.names(
                generation, seen=seen, hnsw=[calibration.SEARCHED[kind] for kind, plan in plans.items() if plan["ef"]]
            ),
        )
        run.connection.execute(queries.query("set_ready"), {"generation": generation})


def _collapsed(content: Content) -> int:
    return int(np.count_nonzero(~content.items.published))


def _load(run: Run, generation: int, content: Content) -> dict[str, Any]:
    recommender, connection = run.recommender, run.connection
    started = connection.execute(
        queries.query("start_building"),
        {
            "generation": generation,
            "run": run.number,
            "definition": Jsonb((content.definition or recommender.definition).model_dump(mode="json")),
        },
    ).fetchone()
    assert started is not None
    population, items, users = content.population, content.items, content.users
    vector_type = recommender.vector_type

    def progress(done: int, total: int) -> None:
        run.reporter.progress("load", done, total)

    copied_items = loading.copy(
        connection,
        generations.table(recommender, "items", generation),
        {
            "generation": Scalars(np.broadcast_to(np.int64(generation), len(population.items)), ">i8"),
            "item_id": Ids(population.items.ids, recommender.item_type),
            "embedding": Vectors(items.embedding, items.published, vector_type),
            "preference": Vectors(items.preference, items.published, vector_type),
            "length": Scalars(items.length, ">f8"),
            "users": Scalars(population.item_users, ">i4"),
            "views": Scalars(population.item_views, ">f8"),
        },
        len(population.items),
        progress,
    )
    copied_users = loading.copy(
        connection,
        generations.table(recommender, "users", generation),
        {
            "generation": Scalars(np.broadcast_to(np.int64(generation), len(population.users)), ">i8"),
            "user_id": Ids(population.users.ids, recommender.user_type),
            "preference": Vectors(users.preference, users.published, vector_type),
            "length": Scalars(users.length, ">f8"),
        },
        len(population.users),
        progress,
    )
    seen = recommender.definition.source.seen == "published"
    if seen:
        assert content.pulled is not None
        _load_seen(run, generation, content.pulled)
    connection.execute(
        queries.query("describe_generation"),
        {
            "generation": generation,
            "snapshot": Jsonb(content.snapshot),
            "filters": Jsonb(content.filters),
            "confidence": Jsonb(content.confidence),
            "training": Jsonb(content.training),
            "fold_in": content.fold_in and Jsonb(content.fold_in),
            "held_out": content.held_out and Jsonb(content.held_out),
            "metrics": content.metrics and Jsonb(content.metrics),
            "factors": content.factors,
            "users": len(population.users) if content.trained_users is None else content.trained_users,
            "items": len(population.items),
            "collapsed_items": _collapsed(content),
            "max_item_length": content.items.longest,
            "mean_preference": (users.mean() if content.mean_preference is None else content.mean_preference).tolist(),
            "seen_published": seen,
        },
    )
    if _collapsed(content):
        run.warn(
            f"{_collapsed(content)} items have factors that shrank to nothing: they keep their popularity, but have no"
            " vectors and are in no list of similar or recommended items."
        )
    return {"items": copied_items, "users": copied_users, "collapsed": _collapsed(content)}


def _load_seen(run: Run, generation: int, pulled: Interactions) -> None:
    """The published table of seen items: every pair with a positive value in the source, also those that the filters dropped."""
    recommender, connection = run.recommender, run.connection
    table = generations.table(recommender, "seen", generation)
    connection.execute(
        f"CREATE TABLE {table} (user_id {recommender.user_type.value} NOT NULL, item_id {recommender.item_type.value} NOT NULL)"
    )
    objects.grant(connection, table, objects.grants_on(connection, recommender.relation("_users")))
    loading.copy(
        connection,
        table,
        {
            "user_id": Ids(pulled.users.ids, recommender.user_type, pulled.user_index),
            "item_id": Ids(pulled.items.ids, recommender.item_type, pulled.item_index),
        },
        len(pulled),
    )


def _analyze(run: Run, generation: int) -> None:
    for kind in ("items", "users"):
        run.connection.execute(f"ANALYZE {generations.table(run.recommender, kind, generation)}")
    if run.recommender.definition.source.seen == "published":
        run.connection.execute(f"ANALYZE {generations.table(run.recommender, 'seen', generation)}")


def _calibrate(run: Run, generation: int, content: Content) -> dict[str, Any]:
    publication = run.recommender.definition.publication
    random = np.random.default_rng(generation)
    population, items, users = content.population, content.items, content.users
    questions = run.settings.calibration_questions
    sampled_users = _sample(random, users.published, questions)
    sampled_items = _sample(random, items.published, questions)
    seen = population.seen(sampled_users)
    kinds = [
        recommending(int(items.published.sum()), _queries(users.preference[sampled_users], seen)),
        Kind("similar", int(items.published.sum()),
             _queries(items.embedding[sampled_items], [_ids(population.items, [item]) for item in sampled_items])),
    ]  # fmt: skip
    if publication.index_users:
        kinds.append(
            Kind("users", int(users.published.sum()),
                 _queries(users.preference[sampled_users], [_ids(population.users, [user]) for user in sampled_users]))
        )  # fmt: skip
    return calibration.calibrate_all(run, generation, kinds)


def _sample(random: np.random.Generator, published: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    candidates = np.flatnonzero(published)
    return np.sort(random.choice(candidates, min(size, len(candidates)), replace=False))


def _queries(vectors: NDArray[np.float32], excluded: Sequence[list[Any]]) -> list[Query]:
    return [
        Query("[" + ",".join(map(repr, vector.tolist())) + "]", ids)
        for vector, ids in zip(vectors, excluded, strict=True)
    ]


def _ids(ids: IdMap, positions: Iterable[int]) -> list[Any]:
    return [ids.to_python(int(position)) for position in positions]
