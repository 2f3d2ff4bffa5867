"""The exact lists of sampled queries, computed here from the vectors as they are stored.

One pass over the table answers all queries: 800 over 41 thousand rows of 256 dimensions take less than a second, where the
server's exact scan takes 10 ms for each of them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from psycopg.rows import tuple_row

from recstore.postgres.arrow import decoded_vectors
from recstore.postgres.names import quoted
from recstore.runs import Run
from recstore.sql.generation import Side
from recstore.types import IdType

if TYPE_CHECKING:
    from recstore.publication.calibration import Query

ROWS = 4096
"""Rows of a batch."""


def distances(
    run: Run, side: Side, column: str, queries: Sequence["Query"], k: int, min_users: int | None = None
) -> list[list[float]]:
    """Return the k smallest distances of each query, or as many as there are, in ascending order: of items, of those with
    `min_users` distinct users.

    They are cosine distances of an `embedding`, else negative inner products, both in double precision.
    """
    if not queries:  # no item has a vector
        return []
    recommender, generation = run.recommender, run.generation
    table, identifier, kind = {
        "items": (generation.items, "item_id", recommender.item_type),
        "users": (generation.users, "user_id", recommender.user_type),
    }[side]
    send = f"{quoted(recommender.vector_schema)}.{recommender.vector_type}_send"
    select = f"SELECT v.{identifier} AS id, {send}(v.{column}) AS vector FROM {table} v WHERE v.{column} IS NOT NULL"  # noqa: S608
    select += f" AND v.users >= {min_users:d}" if min_users else ""
    cosine = column == "embedding"

    def prepared(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        double = vectors.astype(np.float64)
        return double / np.linalg.norm(double, axis=1, keepdims=True) if cosine else double

    number = {vector: place for place, vector in enumerate(dict.fromkeys(query.vector for query in queries))}
    asked = prepared(np.array([np.fromstring(vector[1:-1], np.float32, sep=",") for vector in number]))
    vector_of = [number[query.vector] for query in queries]
    owner = np.repeat(np.arange(len(queries)), [len(query.excluded) for query in queries])
    excluded = _ids([found for query in queries for found in query.excluded], kind)
    best = np.full((len(queries), k), np.inf)
    connection = run.connection
    with connection.transaction(), connection.cursor("exact_lists", binary=True, row_factory=tuple_row) as cursor:
        cursor.execute(select)
        while batch := cursor.fetchmany(ROWS):
            ids, sent = zip(*batch, strict=True)
            vectors = decoded_vectors(pa.array(sent, pa.large_binary()), recommender.vector_type)
            found = (float(cosine) - asked @ prepared(vectors).T)[vector_of]
            row = pc.index_in(excluded, value_set=_ids(ids, kind))
            found[owner[np.asarray(row.is_valid())], row.drop_null().to_numpy()] = np.inf
            if len(batch) > k:
                found.partition(k - 1, axis=1)
            best = np.partition(np.hstack((best, found[:, :k])), k - 1, axis=1)[:, :k]
    return [row[np.isfinite(row)].tolist() for row in np.sort(best, axis=1)]


def _ids(given: Sequence[Any], kind: IdType) -> pa.Array:
    return pa.array([one.bytes for one in given] if kind is IdType.UUID else given, kind.arrow)
