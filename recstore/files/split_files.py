"""Read splits as published with papers and libraries: from their files to interactions.

The first step of `recstore benchmark` and `recstore evaluate --test-file`. Pure: knows no database and no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recstore.errors import InvalidInput
from recstore.files.pair_files import Format, Layout, Pairs, read_negatives, read_pairs
from recstore.model.interactions import IdMap, Interactions, InteractionsBuilder, SourceReport
from recstore.types import IdType


@dataclass(frozen=True, eq=False)
class SplitFiles:
    """A split as its files give it, its ids of one type on each side; `evaluation.splits.given` makes one split of it."""

    train: Interactions
    test: Interactions
    negatives: Pairs | None
    user_type: IdType
    item_type: IdType
    sentences: tuple[str, ...]
    """Sentences about the contents of each file."""


def read_split(
    train: Path,
    test: Path,
    negatives: Path | None = None,
    *,
    format: Format = "auto",
    values: bool = True,
    ratings: bool = False,
) -> SplitFiles:
    """Read a split. Ids are bigint if all of a side's are whole numbers, else text; several rows of one pair are added up,
    of ratings averaged.

    Without `values`, or if a file has none, every row counts 1. Raises InvalidInput with file and line.
    """
    parts = {"train": read_pairs(train, format), "test": read_pairs(test, format)}
    if not values:
        parts = {name: replace(part, values=None) for name, part in parts.items()}
    others = read_negatives(negatives) if negatives else None
    every = [*parts.values(), *([others] if others else [])]
    user_type, item_type = (id_type(pa.chunked_array([getattr(p, side) for p in every])) for side in ("users", "items"))
    built = {name: build(part, user_type, item_type, ratings=ratings) for name, part in parts.items()}
    sentences = [f"{name}: {_summary(parts[name], *found)}" for name, found in built.items()]
    if others:
        users = len(pc.unique(others.users))
        sentences.append(f"negatives: {len(others):,} items for {users:,} users; {others.layout}")
    train_part, test_part = built["train"][0], built["test"][0]
    return SplitFiles(train_part, test_part, others, user_type, item_type, tuple(sentences))


def id_type(ids: pa.ChunkedArray) -> IdType:
    """Return bigint if every id is a whole number as PostgreSQL writes it, else text."""
    distinct = pc.unique(ids)
    try:
        numbers = pc.cast(distinct, pa.int64())
    except pa.ArrowInvalid:
        return IdType.TEXT
    return IdType.BIGINT if pc.all(pc.equal(pc.cast(numbers, pa.string()), distinct)).as_py() else IdType.TEXT


def build(
    pairs: Pairs, user_type: IdType, item_type: IdType, *, ratings: bool = False
) -> tuple[Interactions, SourceReport]:
    """Return the interactions of a file's rows. Raises InvalidInput if an id is not of its type, or nothing is left."""
    values = pairs.values if pairs.values is not None else np.ones(len(pairs))
    columns = {
        "user_id": _typed(pairs.users, user_type, pairs.path),
        "item_id": _typed(pairs.items, item_type, pairs.path),
        "value": pa.array(values),
    }
    if pairs.times is not None:
        columns["last_at"] = pa.array(pairs.times, pa.timestamp("us", "UTC"))
    if not (values > 0).any() and not (ratings and len(pairs)):
        raise InvalidInput(f"{pairs.path} has no pair{' with a value above 0' if len(pairs) else ''}.")
    with_times = pairs.times is not None
    builder = InteractionsBuilder(
        user_type,
        item_type,
        "mean" if ratings else "sum",
        1.0,
        str(pairs.path),
        with_times=with_times,
        ratings=ratings,
    )
    builder.add(pa.RecordBatch.from_pydict(columns))
    return builder.build()


def from_rows(rows: Sequence[tuple[str, str]], user_type: IdType, item_type: IdType, what: str) -> Interactions:
    """Return the interactions of pairs of ids as text; `what` names them in messages. Raises as `build`."""
    users, items = zip(*rows, strict=True) if rows else ((), ())
    columns = pa.array(users, pa.string()), pa.array(items, pa.string())
    return build(Pairs(what, Layout("pairs"), *columns, None, None), user_type, item_type)[0]


def matrix(pairs: Pairs, users: IdMap, items: IdMap, user_type: IdType, item_type: IdType) -> sparse.csr_matrix:
    """Return 1 for each of the rows whose two ids are known, float32 CSR (users, items)."""
    rows, columns = users.lookup(_typed(pairs.users, user_type)), items.lookup(_typed(pairs.items, item_type))
    known = (rows >= 0) & (columns >= 0)
    shape = len(users), len(items)
    found = sparse.csr_matrix((np.ones(known.sum(), dtype=np.float32), (rows[known], columns[known])), shape=shape)
    found.data[:] = 1
    return found


def _summary(pairs: Pairs, interactions: Interactions, report: SourceReport) -> str:
    words = [
        f"{len(interactions):,} pairs of {len(interactions.users):,} users and {len(interactions.items):,} items",
        str(pairs.layout) + ("" if pairs.values is not None or pairs.layout.value is None else ", values left out"),
    ]
    if report.duplicates:
        words.append(f"{report.duplicates:,} repeated pairs added up")
    if report.nonpositive:
        words.append(f"{report.nonpositive:,} rows of 0 or less left out")
    return "; ".join(words)


def _typed(ids: pa.Array, kind: IdType, path: Path | str = "") -> pa.Array:
    """Return text as ids of a type. Raises InvalidInput."""
    if kind is IdType.TEXT:
        return ids
    try:
        if kind is IdType.UUID:
            distinct = ids.dictionary_encode()
            known = pa.array([kind.parse(text, "id").bytes for text in distinct.dictionary.to_pylist()], kind.arrow)  # type: ignore[union-attr]
            return known.take(distinct.indices)
        return pc.cast(ids, kind.arrow)
    except (pa.ArrowInvalid, InvalidInput) as error:
        reason = error.message if isinstance(error, InvalidInput) else " ".join(str(error).split())
        raise InvalidInput(f"{path}: the ids are not all of the type {kind.value}: {reason}") from None
