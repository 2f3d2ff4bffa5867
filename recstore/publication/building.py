"""A generation from its vectors: loaded, indexed, calibrated, checked, ready. What a run does between training and flip."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from recstore import objects, sqlfile
from recstore.interactions import IdMap, Interactions
from recstore.publication import calibration, checks, generations, indexes, loading
from recstore.publication.calibration import Kind, Query, recommending
from recstore.publication.loading import Ids, Scalars, Vectors
from recstore.runs import Run
from recstore.vectors import ItemVectors, UserVectors


@dataclass(frozen=True)
class Content:
    """Everything a generation is made of; `pulled` are the interactions before the filters, for the seen items."""

    interactions: Interactions
    pulled: Interactions
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
            users=len(content.interactions.users),
            items=len(content.interactions.items),
            collapsed=_collapsed(content),
            indexes=indexes.names(
                generation, seen=seen, hnsw=[calibration.SEARCHED[kind] for kind, plan in plans.items() if plan["ef"]]
            ),
        )
        run.connection.execute(sqlfile.query("set_ready"), {"generation": generation})


def _collapsed(content: Content) -> int:
    return int(np.count_nonzero(~content.items.published))


def _load(run: Run, generation: int, content: Content) -> dict[str, Any]:
    recommender, connection = run.recommender, run.connection
    started = connection.execute(
        sqlfile.query("start_building"),
        {
            "generation": generation,
            "run": run.number,
            "definition": Jsonb(recommender.definition.model_dump(mode="json")),
        },
    ).fetchone()
    assert started is not None
    interactions, items, users = content.interactions, content.items, content.users
    vector_type = recommender.vector_type
    popularity = np.bincount(interactions.item_index, minlength=len(interactions.items))
    views = np.bincount(interactions.item_index, weights=interactions.values, minlength=len(interactions.items))

    def progress(done: int, total: int) -> None:
        run.reporter.progress("load", done, total)

    copied_items = loading.copy(
        connection,
        generations.table(recommender, "items", generation),
        {
            "generation": Scalars(np.broadcast_to(np.int64(generation), len(interactions.items)), ">i8"),
            "item_id": Ids(interactions.items.ids, recommender.item_type),
            "embedding": Vectors(items.embedding, items.published, vector_type),
            "preference": Vectors(items.preference, items.published, vector_type),
            "length": Scalars(items.length, ">f8"),
            "users": Scalars(popularity, ">i4"),
            "views": Scalars(views, ">f8"),
        },
        len(interactions.items),
        progress,
    )
    copied_users = loading.copy(
        connection,
        generations.table(recommender, "users", generation),
        {
            "generation": Scalars(np.broadcast_to(np.int64(generation), len(interactions.users)), ">i8"),
            "user_id": Ids(interactions.users.ids, recommender.user_type),
            "preference": Vectors(users.preference, users.published, vector_type),
            "length": Scalars(users.length, ">f8"),
        },
        len(interactions.users),
        progress,
    )
    seen = recommender.definition.source.seen == "published"
    if seen:
        _load_seen(run, generation, content.pulled)
    connection.execute(
        sqlfile.query("describe_generation"),
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
            "users": len(interactions.users),
            "items": len(interactions.items),
            "collapsed_items": _collapsed(content),
            "max_item_length": content.items.longest,
            "mean_preference": content.users.mean().tolist(),
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
    interactions, items, users = content.interactions, content.items, content.users
    sampled_users = _sample(random, users.published)
    sampled_items = _sample(random, items.published)
    starts = np.searchsorted(interactions.user_index, np.arange(len(interactions.users) + 1))
    seen = [interactions.item_index[starts[user] : starts[user + 1]] for user in sampled_users]
    kinds = [
        recommending(int(items.published.sum()), _queries(users.preference[sampled_users], interactions.items, seen)),
        Kind("similar", int(items.published.sum()),
             _queries(items.embedding[sampled_items], interactions.items, sampled_items[:, None])),
    ]  # fmt: skip
    if publication.index_users:
        kinds.append(
            Kind("users", int(users.published.sum()),
                 _queries(users.preference[sampled_users], interactions.users, sampled_users[:, None]))
        )  # fmt: skip
    return calibration.calibrate_all(run, generation, kinds)


def _sample(random: np.random.Generator, published: NDArray[np.bool_]) -> NDArray[np.int64]:
    candidates = np.flatnonzero(published)
    return np.sort(random.choice(candidates, min(calibration.SAMPLE, len(candidates)), replace=False))


def _queries(vectors: NDArray[np.float32], ids: IdMap, excluded: Any) -> list[Query]:
    return [
        Query("[" + ",".join(map(repr, vector.tolist())) + "]", [ids.to_python(int(index)) for index in indices])
        for vector, indices in zip(vectors, excluded, strict=True)
    ]
