"""The exact lists of sampled queries, computed here from the vectors as they are stored.

One pass over the table answers all queries: 800 over 41 thousand rows of 256 dimensions take less than a second, where the
server's exact scan takes 10 ms for each of them.
"""

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recstore.model.interactions import plain
from recstore.postgres.arrow import decoded_vectors, reading
from recstore.postgres.names import quoted
from recstore.runs import Run
from recstore.sql.generation import Side

if TYPE_CHECKING:
    from recstore.publication.calibration import Query

ROWS = 4096
"""Rows of a batch, about."""


def distances(run: Run, side: Side, column: str, queries: Sequence["Query"], k: int) -> list[list[float]]:
    """Return the k smallest distances of each query, or as many as there are, in ascending order.

    They are cosine distances of an `embedding`, else negative inner products, both in double precision. Raises ConnectionLost.
    """
    recommender, generation = run.recommender, run.generation
    table, identifier, kind = {
        "items": (generation.items, "item_id", recommender.item_type),
        "users": (generation.users, "user_id", recommender.user_type),
    }[side]
    send = f"{quoted(recommender.vector_schema)}.{recommender.vector_type}_send"
    select = f"SELECT v.{identifier} AS id, {send}(v.{column}) AS vector FROM {table} v WHERE v.{column} IS NOT NULL"  # noqa: S608
    cosine = column == "embedding"

    def prepared(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        double = vectors.astype(np.float64)
        return double / np.linalg.norm(double, axis=1, keepdims=True) if cosine else double

    number = {vector: place for place, vector in enumerate(dict.fromkeys(query.vector for query in queries))}
    asked = prepared(np.array([np.fromstring(vector[1:-1], np.float32, sep=",") for vector in number]))
    vector_of = [number[query.vector] for query in queries]
    owner = np.repeat(np.arange(len(queries)), [len(query.excluded) for query in queries])
    ids = (found.bytes if isinstance(found, uuid.UUID) else found for query in queries for found in query.excluded)
    excluded = pa.array(ids, kind.arrow)
    best = np.full((len(queries), k), np.inf)
    batch_bytes = ROWS * 4 * recommender.dimensions
    doing = f"reading {generation} of {recommender.name!r}"
    with reading(run.url, run.application_name, doing, batch_bytes=batch_bytes) as transaction:
        for batch in transaction.batches(select):
            if not len(batch):
                continue
            vectors = decoded_vectors(batch["vector"], recommender.vector_type)
            found = (float(cosine) - asked @ prepared(vectors).T)[vector_of]
            row = pc.index_in(excluded, value_set=plain(batch["id"]).cast(kind.arrow))
            found[owner[np.asarray(row.is_valid())], row.drop_null().to_numpy()] = np.inf
            if len(batch) > k:
                found.partition(k - 1, axis=1)
            best = np.partition(np.hstack((best, found[:, :k])), k - 1, axis=1)[:, :k]
    return [row[np.isfinite(row)].tolist() for row in np.sort(best, axis=1)]
