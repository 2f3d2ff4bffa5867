"""Refresh the live generation: store changed users and items in its tables, in one transaction.

Readers see all of them before or after it. Items whose interactions have not changed stay as they are. The table `_refreshed_N`
of the generation says which rows a refresh wrote, and when.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg.types.json import Jsonb

from recstore.definition import Source
from recstore.errors import NotTrained, RefreshOvertaken, RefreshRefused
from recstore.model.arrays import Matrix, Positions
from recstore.model.interactions import IdMap, Interactions, plain
from recstore.model.refreshed import Live, Solved
from recstore.model.trainers import QueryFoldIn
from recstore.postgres.arrow import reading
from recstore.publication import calibration, erasing, generations, indexes, loading, stored
from recstore.publication.generations import Prepared
from recstore.publication.loading import Column, Ids, Scalars, Vectors
from recstore.runs import Run, Summary
from recstore.sql import queries
from recstore.sql.objects import VECTOR_ROUNDING
from recstore.wording import counted

MANY = 0.1
"""Share of the rows of a table that were refreshed since the last calibration, from which ANN recall is measured again."""


def prepare(run: Run) -> Prepared:
    """Choose the live generation. Raises NotTrained, RefreshRefused."""
    live = generations.live(run.connection, run.recommender)
    if live is None:
        raise NotTrained(name=run.name)
    run.generation = live
    row, reason = queries.one(run.connection, "generation_size", generation=live.number), ""
    if not row["folds_in"]:
        reason = f"{live} has no fold-in: an older recstore published it, or its trainer has none"
    elif Source.model_validate(row["source"]).rows != run.recommender.definition.source.rows:
        reason = f"{live} was trained on another source than the definition names by now"
    if reason:
        raise RefreshRefused(name=run.name, reason=reason, remedy=f"Run: recstore retrain {run.name}")
    version = indexes.pgvector(run.connection)
    if version < indexes.UPDATABLE_FROM and any(row["hnsw"] for row in indexes.existing(run.connection, live)):
        reason = f"pgvector {'.'.join(map(str, version))} can corrupt an HNSW index whose rows are updated in place"
        remedy = "Install pgvector 0.8.4 or newer on the server, then run: ALTER EXTENSION vector UPDATE;"
        raise RefreshRefused(name=run.name, reason=reason, remedy=remedy)
    with run.connection.transaction():
        generations.create_marks(run.connection, live)
    return Prepared(live)


def read(run: Run) -> Live:
    """Return the live generation's items, and what its fold-in by SQL reads. Raises ConnectionLost."""
    generation = run.generation
    model = stored.read(run.connection, run.url, generation, run.application_name)
    assert model is not None
    row = queries.one(run.connection, "refreshed_generation", generation=generation.number)
    with reading(run.url, run.application_name, f"reading {generation} of {run.name!r}") as transaction:
        items = transaction.table(
            f"SELECT v.item_id, f.whitened::real[] AS whitened, f.summand::real[] AS summand, f.idf"  # noqa: S608
            f" FROM {generation.items} v LEFT JOIN {generation.fold_in} f ON f.item_id = v.item_id"
        )
        basis = stored.basis(transaction, generation)
    place = model.items.lookup(plain(items["item_id"].combine_chunks()))
    idf = np.zeros(len(place))
    idf[place] = items["idf"].to_numpy()
    return Live(
        model=model,
        queries=QueryFoldIn(
            whitened=_matrix(items["whitened"], place, len(model.items)),
            basis=basis,
            summands=_matrix(items["summand"], place, len(model.items)),
            solved_weight=row["solved_weight"],
            idf=idf,
        ),
        longest=row["max_item_length"],
    )


def _matrix(column: pa.ChunkedArray, place: Positions, rows: int) -> Matrix | None:
    """Return vectors at these places, zeros for NULL; None if all are NULL."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if array.null_count == len(array):
        return None
    width = len(array.drop_null()[0])
    matrix = np.zeros((rows, width), dtype=np.float32)
    matrix[place] = stored.block(array, width)
    return matrix


@dataclass(frozen=True, eq=False)
class Changes:
    """The users to store, as positions in those that were solved; all solved items are."""

    users: Positions
    items: int
    added_items: int

    def details(self) -> dict[str, Any]:
        return {"users": len(self.users), "items": self.items, "added_items": self.added_items}

    def __str__(self) -> str:
        words = f"{counted(len(self.users), 'user')} and {counted(self.items, 'item')} have changed"
        return words + (f", {self.added_items:,} of them new items" if self.added_items else "")


def compare(run: Run, live: Live, solved: Solved) -> Changes:
    """Compare the solved users with those that the generation stores, within the precision of the vectors."""
    recommender, generation, people = run.recommender, run.generation, solved.users
    rounding = VECTOR_ROUNDING[recommender.vector_type]
    same = np.zeros(len(solved.interactions.users), dtype=np.bool_)
    select = f"SELECT u.user_id, u.preference::real[] AS preference, u.length FROM {generation.users} u"  # noqa: S608
    with reading(run.url, run.application_name, f"reading {generation} of {run.name!r}") as transaction:
        for batch in transaction.batches(select):
            user = solved.interactions.users.lookup(plain(batch["user_id"]))
            found = np.flatnonzero(user >= 0)
            user, before = user[found], stored.block(batch["preference"], recommender.dimensions)[found]
            length = batch["length"].to_numpy()[found]
            near = np.linalg.norm(people.preference[user] - before, axis=1) <= rounding
            same[user] = near & (np.abs(people.length[user] - length) <= rounding * length)
    added = live.model.items.lookup(solved.interactions.items.take(solved.items)) < 0
    return Changes(np.flatnonzero(people.published & ~same), len(solved.items), int(np.count_nonzero(added)))


def store(run: Run, live: Live, solved: Solved, changes: Changes, pulled: Interactions, read_in: str) -> Changes:
    """Store the changes, all or none, without the users erased since the snapshot that the source was read in.

    Raises LostLock, RefreshOvertaken."""
    row = queries.one(run.connection, "generation_size", generation=run.generation.number)
    with erasing.completing(run, read_in):
        _require_live(run)
        if changes.items:
            _store_items(run, live, solved, changes)
        _store_users(run, solved, changes.users)
        if row["seen_published"]:
            _store_seen(run, pulled)
        written = f"SELECT count(r.user_id) AS users, count(r.item_id) AS items FROM {run.generation.refreshed} r"  # noqa: S608
        counts = run.connection.execute(written).fetchone()
        queries.run(run.connection, "note_refreshed", generation=run.generation.number, refreshed=Jsonb(counts))
        _require_live(run)
    return changes


def _require_live(run: Run) -> None:
    """Raise LostLock or RefreshOvertaken unless this run may write into the generation."""
    run.check("store")
    if generations.live(run.connection, run.recommender) != run.generation:
        raise RefreshOvertaken(generation=run.generation.number, name=run.name)


def _store_users(run: Run, solved: Solved, rows: Positions) -> None:
    recommender, people = run.recommender, solved.users
    columns: dict[str, Column] = {
        "generation": _number(run, len(people.length)),
        "user_id": Ids(solved.interactions.users.ids, recommender.user_type),
        "preference": Vectors(people.preference, people.published, recommender.vector_type),
        "length": Scalars(people.length, ">f8"),
    }
    _replace(run, "user_id", run.generation.users, columns, rows)
    _replace(run, "user_id", run.generation.refreshed, {"user_id": columns["user_id"]}, rows)


def _store_items(run: Run, live: Live, solved: Solved, changes: Changes) -> None:
    recommender, items, interactions = run.recommender, solved.vectors, solved.interactions
    ids = Ids(interactions.items.take(solved.items), recommender.item_type)
    views = np.bincount(interactions.item_index, np.maximum(interactions.values, 0), len(interactions.items))[
        solved.items
    ]
    columns: dict[str, Column] = {
        "generation": _number(run, len(solved.items)),
        "item_id": ids,
        "embedding": Vectors(items.embedding, items.published, recommender.vector_type),
        "preference": Vectors(items.preference, items.published, recommender.vector_type),
        "length": Scalars(items.length, ">f8"),
        "users": Scalars(interactions.item_users()[solved.items], ">i4"),
        "views": Scalars(views, ">f8"),
    }
    folding: dict[str, Column] = {"item_id": ids}
    if solved.queries.idf is not None:
        folding["idf"] = Scalars(solved.queries.idf, ">f8")
    for name, matrix in {"whitened": solved.queries.whitened, "summand": solved.queries.summands}.items():
        if matrix is not None:
            folding[name] = Vectors(matrix, items.published & loading.known_to_fold_in(name, matrix), "vector")
    every = np.arange(changes.items)
    _replace(run, "item_id", run.generation.items, columns, every)
    _replace(run, "item_id", run.generation.fold_in, folding, every)
    _replace(run, "item_id", run.generation.refreshed, {"item_id": ids}, every)
    held_out = live.model.held_out
    if held_out:  # its items are positions in the order of the ids
        pairs = np.zeros(len(interactions.items), dtype=np.int64)
        pairs[interactions.items.lookup(live.model.items.ids)[held_out["items"]]] = held_out["counts"]
        pairs[solved.items] = solved.held_out
        (some,) = np.nonzero(pairs)
        held_out = held_out | {"items": some.tolist(), "counts": pairs[some].tolist()}
    queries.run(
        run.connection,
        "store_refreshed",
        generation=run.generation.number,
        added=changes.added_items,
        held_out=held_out and Jsonb(held_out),
    )


def _number(run: Run, rows: int) -> Scalars:
    return Scalars(np.broadcast_to(np.int64(run.generation.number), rows), ">i8")


def _replace(run: Run, identifier: str, table: str, columns: dict[str, Column], rows: Positions) -> None:
    """Replace the rows of these ids, and add missing ones."""
    ids = columns[identifier]
    assert isinstance(ids, Ids)
    taken = IdMap(ids.ids.take(pa.array(rows)))
    run.connection.execute(
        f"DELETE FROM {table} t WHERE t.{identifier} = ANY (%s::{ids.kind.value}[])",  # noqa: S608
        [[taken.to_python(place) for place in range(len(taken))]],
    )
    loading.copy(run.connection, table, columns, len(rows), order=rows.astype(np.int64))


def _store_seen(run: Run, pulled: Interactions) -> None:
    """Bring the published seen items to those of the source."""
    recommender, connection, table = run.recommender, run.connection, run.generation.seen
    now = recommender.relation("_seen_now")
    connection.execute(f"CREATE TABLE {now} (LIKE {table})")
    loading.copy(
        connection,
        now,
        {
            "user_id": Ids(pulled.users.ids, recommender.user_type, pulled.user_index),
            "item_id": Ids(pulled.items.ids, recommender.item_type, pulled.item_index),
        },
        len(pulled),
    )
    pair = "s.user_id = n.user_id AND s.item_id = n.item_id"
    connection.execute(f"DELETE FROM {table} s WHERE NOT EXISTS (SELECT FROM {now} n WHERE {pair})")  # noqa: S608
    connection.execute(
        f"INSERT INTO {table} SELECT n.user_id, n.item_id FROM {now} n WHERE NOT EXISTS (SELECT FROM {table} s WHERE {pair})"  # noqa: S608
    )
    connection.execute(f"DROP TABLE {now}")


def declined(run: Run) -> Summary:
    """Measure ANN recall again if refreshes have changed a tenth of an indexed table since the last calibration.

    The figure `kinds` are the kinds of query that no longer reach it."""
    row = queries.one(run.connection, "refreshed_since", generation=run.generation.number)
    changed = run.connection.execute(
        f"SELECT count(r.user_id) AS users, count(r.item_id) AS items FROM {run.generation.refreshed} r"  # noqa: S608
        " WHERE r.refreshed_at > %s",
        [row["calibrated_at"]],
    ).fetchone()
    assert changed is not None
    sides = {side for side in ("users", "items") if changed[side] > MANY * row[side]}
    if not sides & {side for side, _ in calibration.indexed(run.connection, run.generation)}:
        return Summary("too few rows have changed for it to matter", {"kinds": []})
    kinds = calibration.declined(run)
    return Summary(f"ANN recall fell for {', '.join(kinds)}" if kinds else "ANN recall holds", {"kinds": kinds})
