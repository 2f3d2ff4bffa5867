"""Read a published generation back: the items it was trained on, and what folding users in against them takes."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recstore.definition import Definition
from recstore.model import confidence, ratings, vectors
from recstore.model.arrays import Matrix
from recstore.model.interactions import IdMap, plain
from recstore.model.trained import Stored
from recstore.model.trainers import FoldIn
from recstore.model.vectors import ItemWeights
from recstore.postgres.arrow import Reading, reading
from recstore.postgres.connection import Connection
from recstore.publication import generations
from recstore.runs import Run
from recstore.sql import queries
from recstore.sql.generation import Generation


def live(run: Run) -> Stored | None:
    """Return the live generation as the next training starts from it and is compared with it; None without one."""
    generation = generations.live(run.connection, run.recommender)
    return None if generation is None else read(run.connection, run.url, generation, run.application_name)


def read(connection: Connection, url: str, generation: Generation, application_name: str) -> Stored | None:
    """Return a generation; None if an older recstore published it without the data of a fold-in. Raises ConnectionLost."""
    row = queries.row(connection, "stored_generation", generation=generation.number)
    if row is None or row["fold_in"] is None:
        return None
    ids, factors, users = _columns(url, generation, row, application_name)
    trained_on = users.copy()
    if row["held_out"]:
        trained_on[row["held_out"]["items"]] -= np.array(row["held_out"]["counts"], dtype=np.int64)
    return Stored(
        generation=generation.number,
        items=ids,
        item_users=users,
        fold_in=FoldIn(factors, trained_on, row["fold_in"]),
        confidence=confidence.restore(row["confidence"], trained_on, row["users"]),
        alpha=row["training"]["alpha"],
        trainer=row["training"]["trainer"],
        definition=Definition.model_validate(row["definition"]),
        held_out=row["held_out"],
        weights=ItemWeights(**row["training"].get("item_weights", {})),
    )


def _columns(url: str, generation: Generation, row: dict[str, Any], application_name: str) -> Any:
    rated = row["confidence"]["function"] == ratings.FUNCTION  # the embedding lacks the biases
    vector, length = ("preference", f"{row['max_item_length']!r}::float8") if rated else ("embedding", "v.length")
    select = f"SELECT v.item_id, v.{vector}::real[] AS vector, {length} AS length, v.users FROM {generation.items} v"  # noqa: S608
    recommender = generation.recommender
    doing = f"reading {generation} of {recommender.name!r}"
    with reading(url, application_name, doing) as transaction:
        table = transaction.table(select).combine_chunks()
    ids = plain(table["item_id"].combine_chunks()).cast(recommender.item_type.arrow)
    order = pc.sort_indices(ids)
    table = table.take(order)
    unit = block(table["vector"].combine_chunks(), row["factors"])
    factors = vectors.factors_from(unit, table["length"].to_numpy(), row["factors"])
    return IdMap(ids.take(order)), factors, table["users"].to_numpy().astype(np.int64)


def basis(transaction: Reading, generation: Generation) -> Matrix | None:
    """Return the basis of a generation's solved factors; None without any."""
    rows = transaction.table(f"SELECT b.basis::real[] AS basis FROM {generation.basis} b ORDER BY b.factor")  # noqa: S608
    return block(rows["basis"].combine_chunks(), len(rows)) if len(rows) else None


def block(vectors: pa.Array, factors: int) -> NDArray[np.float32]:
    """Return vectors that were read as real[], without their padding: float32 (rows, factors), zeros for NULL."""
    rows = np.zeros((len(vectors), factors), dtype=np.float32)
    present = np.asarray(vectors.is_valid())
    if present.any():
        flat = np.asarray(vectors.drop_null().flatten(), dtype=np.float32)
        rows[present] = flat.reshape(int(present.sum()), -1)[:, :factors]
    return rows
