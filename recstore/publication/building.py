"""Fill a generation: load its vectors, index and calibrate its tables, check them. Each function is a stage of a run.

Each stage works on the run's generation and commits by itself. Knows nothing of training.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from recstore.definition import MAX_VECTOR_DIMENSIONS, Definition
from recstore.model.arrays import Mask, Matrix
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trainers import QueryFoldIn
from recstore.model.vectors import ItemVectors, UserVectors
from recstore.postgres.names import quoted
from recstore.publication import calibration, checks, generations, indexes, loading
from recstore.publication.loading import Column, Ids, Scalars, Vectors
from recstore.runs import Run, Summary
from recstore.sql import objects, queries
from recstore.sql.generation import Side, sides
from recstore.wording import counted

TRACE = np.float32(1e-20)
"""Size of an element below which a fold-in gets 0: pgvector refuses products that single precision cannot hold."""


@dataclass(frozen=True, eq=False)
class Population:
    """The ids, the popularity and the seen items of a generation, apart from its vectors."""

    users: IdMap
    items: IdMap
    item_users: NDArray[np.int64]  # (items,), distinct users
    item_views: NDArray[np.float64]  # (items,)

    @classmethod
    def of(cls, interactions: Interactions) -> Self:
        """Return the population of a training. Each rating is a view, and a dislike is none."""
        values = None if interactions.rated else np.maximum(interactions.values, 0)
        views = np.bincount(interactions.item_index, values, len(interactions.items))
        return cls(interactions.users, interactions.items, interactions.item_users(), views.astype(np.float64))


@dataclass(frozen=True, eq=False)
class Content:
    """Everything a generation stores.

    `pulled` are the interactions before the filters; their pairs are published where the definition publishes seen items.
    """

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
    for_queries: QueryFoldIn | None = None
    """What SQL needs to fold in users; None if the trainer cannot do that."""
    held_out: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    definition: Definition | None = None
    """The definition it was trained by, if not the recommender's."""
    trained_users: int | None = None
    """Number of users it was trained on, if not all of them are in `population`."""
    mean_preference: NDArray[np.float32] | None = None
    """The mean user direction, if not that of `users`."""
    refreshed_users: Mask | None = None
    refreshed_items: Mask | None = None
    """The users and items that a refresh wrote, if it is from a file."""

    @property
    def collapsed(self) -> int:
        """Number of items without vectors."""
        return int(np.count_nonzero(~self.items.published))


def load(run: Run, content: Content) -> Summary:
    """Copy the rows of a generation and describe it."""
    recommender, connection, generation = run.recommender, run.connection, run.generation
    definition = (content.definition or recommender.definition).model_dump(mode="json")
    queries.one(connection, "start_building", **generation.keys, run=run.number, definition=Jsonb(definition))
    population, items, users = content.population, content.items, content.users
    vector_type = recommender.vector_type

    def progress(done: int, total: int) -> None:
        run.reporter.progress("load", done, total)

    def number(rows: int) -> Scalars:
        return Scalars(np.broadcast_to(np.int64(generation.number), rows), ">i8")

    loading.copy(
        connection,
        generation.items,
        {
            "generation": number(len(population.items)),
            "item_id": Ids(population.items.ids, recommender.item_type),
            "embedding": Vectors(items.embedding, items.published, vector_type),
            "preference": Vectors(items.preference, items.published, vector_type),
            "length": Scalars(items.length, ">f8"),
            "users": Scalars(population.item_users, ">i4"),
            "views": Scalars(population.item_views, ">f8"),
        },
        len(population.items),
        progress,
        # HNSW loses fewer items (docs/decisions/0029)
        order=np.argsort(-np.linalg.norm(items.preference, axis=1), kind="stable"),
    )
    loading.copy(
        connection,
        generation.users,
        {
            "generation": number(len(population.users)),
            "user_id": Ids(population.users.ids, recommender.user_type),
            "preference": Vectors(users.preference, users.published, vector_type),
            "length": Scalars(users.length, ">f8"),
        },
        len(population.users),
        progress,
    )
    if _seen_published(run):
        assert content.pulled is not None
        _load_seen(run, content.pulled)
    if content.for_queries:
        _load_fold_in(run, content, content.for_queries)
    _load_marks(run, content)
    queries.run(
        connection,
        "describe_generation",
        generation=generation.number,
        snapshot=Jsonb(content.snapshot),
        filters=Jsonb(content.filters),
        confidence=Jsonb(content.confidence),
        training=Jsonb(content.training | {"solved_weight": content.for_queries and content.for_queries.solved_weight}),
        fold_in=content.fold_in and Jsonb(content.fold_in),
        held_out=content.held_out and Jsonb(content.held_out),
        metrics=content.metrics and Jsonb(content.metrics),
        factors=content.factors,
        users=len(population.users) if content.trained_users is None else content.trained_users,
        items=len(population.items),
        collapsed_items=content.collapsed,
        max_item_length=content.items.longest,
        mean_preference=(users.mean() if content.mean_preference is None else content.mean_preference).tolist(),
        seen_published=_seen_published(run),
    )
    if content.collapsed:
        run.warn(
            f"{counted(content.collapsed, 'item')} collapsed: the factors shrank to zero. They keep their popularity, have no"
            " vectors, and appear in no list of similar or recommended items."
        )
    figures = {"items": len(population.items), "users": len(population.users), "collapsed": content.collapsed}
    return Summary(f"{len(population.items):,} items, {len(population.users):,} users", figures)


def _seen_published(run: Run) -> bool:
    return run.recommender.definition.source.seen == "published"


def _load_seen(run: Run, pulled: Interactions) -> None:
    """Publish the seen items: every pair with a positive value in the source, including those that the filters drop."""
    recommender, connection, table = run.recommender, run.connection, run.generation.seen
    connection.execute(
        f"CREATE TABLE {table} (user_id {recommender.user_type.value} NOT NULL, item_id {recommender.item_type.value} NOT NULL)"
    )
    objects.grant(connection, table, [])
    loading.copy(
        connection,
        table,
        {
            "user_id": Ids(pulled.users.ids, recommender.user_type, pulled.user_index),
            "item_id": Ids(pulled.items.ids, recommender.item_type, pulled.item_index),
        },
        len(pulled),
    )


def _load_fold_in(run: Run, content: Content, given: QueryFoldIn) -> None:
    """Publish what SQL needs to fold in users: a row for each item, whose views count for the user's total even if it has no
    vectors, and the basis."""
    kind = run.recommender.item_type
    columns: dict[str, Column] = {"item_id": Ids(content.population.items.ids, kind)}
    for name, numbers in {"idf": given.idf, "bias": given.bias}.items():
        if numbers is not None:
            columns[name] = Scalars(numbers, ">f8")
    vectors = {"whitened": given.whitened, "summand": given.summands}
    defined = f"item_id {kind.value} NOT NULL, idf float8, bias float8"
    _load_vectors(run, "fold_in", defined, columns, vectors, content.items.published)
    rows = np.arange(0 if given.basis is None else len(given.basis))
    every = np.ones(len(rows), dtype=np.bool_)
    _load_vectors(
        run, "basis", "factor integer NOT NULL", {"factor": Scalars(rows, ">i4")}, {"basis": given.basis}, every
    )


def _load_marks(run: Run, content: Content) -> None:
    """Mark the rows that a refresh wrote before they came here from a file, as a refresh does."""
    kinds, population = run.recommender, content.population
    marks = {
        "user_id": (Ids(population.users.ids, kinds.user_type), content.refreshed_users),
        "item_id": (Ids(population.items.ids, kinds.item_type), content.refreshed_items),
    }
    for identifier, (ids, rows) in marks.items():
        if rows is not None and rows.any():
            generations.create_marks(run.connection, run.generation)
            marked = np.flatnonzero(rows)
            loading.copy(run.connection, run.generation.refreshed, {identifier: ids}, len(marked), order=marked)


def _load_vectors(
    run: Run, side: Side, definition: str, columns: dict[str, Column], vectors: dict[str, Matrix | None], known: Mask
) -> None:
    """Create a table for the readers of the items with these columns and, where `known`, single-precision vectors."""
    connection, recommender, table = run.connection, run.recommender, run.generation.table(side)
    single = f"{quoted(recommender.vector_schema)}.vector"
    connection.execute(f"CREATE TABLE {table} ({definition}, {', '.join(f'{name} {single}' for name in vectors)})")
    changes = ["DISABLE ROW LEVEL SECURITY"]  # an event trigger's
    if sum(0 if matrix is None else matrix.shape[1] for matrix in vectors.values()) <= MAX_VECTOR_DIMENSIONS:
        changes += [f"ALTER COLUMN {name} SET STORAGE PLAIN" for name in vectors]
    connection.execute(f"ALTER TABLE {table} {', '.join(changes)}")
    objects.grant(connection, table, objects.grants_on(connection, recommender.relation("_items")))
    for name, matrix in vectors.items():
        if matrix is not None:
            columns[name] = Vectors(
                np.where(np.abs(matrix) < TRACE, 0, matrix), known & loading.known_to_fold_in(name, matrix), "vector"
            )
    loading.copy(connection, table, columns, len(known))


def index(run: Run, content: Content) -> Summary:
    """Build the lookup indexes of the generation and collect its statistics."""
    tables = _sides(run, content)
    for statement in indexes.lookups(run.generation, tables).values():
        run.connection.execute(statement)
    for side in tables:
        run.connection.execute(f"ANALYZE {run.generation.table(side)}")
    return Summary("ids and popularity", {"tables": tables})


def _sides(run: Run, content: Content) -> list[Side]:
    """Return the tables that this generation has."""
    return sides(seen=_seen_published(run), fold_in=content.for_queries is not None)


def check(run: Run, content: Content) -> Summary:
    """Compare the tables with what was computed. Raises PublicationFailed."""
    hnsw = calibration.indexed(run.connection, run.generation)
    return checks.check(
        run.connection,
        run.generation,
        users=len(content.population.users),
        items=len(content.population.items),
        collapsed=content.collapsed,
        indexes=indexes.names(run.generation, _sides(run, content), hnsw),
    )
