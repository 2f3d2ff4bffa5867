"""The form of the rows of both kinds of lists: columns, types and key, in tables and in files."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recstore.lists.blocks import REASONS, Block, Items, ListRows
from recstore.publication.loading import Column, Ids, Scalars
from recstore.source.inspection import SourceShape
from recstore.sql.objects import Registered
from recstore.types import IdType

_REASONS = pa.array(REASONS)


@dataclass(frozen=True)
class Shape:
    """The rows that one command writes."""

    command: str
    owner: str
    item: str
    owner_type: IdType
    item_type: IdType
    reasons: bool

    @property
    def columns(self) -> dict[str, str]:
        """The SQL type of each column, in order."""
        columns = {self.owner: self.owner_type.value, "rank": "integer", self.item: self.item_type.value}
        reason = {"reason": "text"} if self.reasons else {}
        return columns | {"score": "double precision"} | reason | {"generation": "bigint"}

    @property
    def key(self) -> tuple[str, str]:
        return (self.owner, "rank")

    @property
    def arrow(self) -> pa.Schema:
        """The schema of a file, where uuids are text."""
        types = {kind.value: kind.arrow for kind in IdType} | {"uuid": pa.string(), "double precision": pa.float64()}
        return pa.schema({name: types[kind] for name, kind in self.columns.items()})

    def copied(self, items: Items, block: Block, rows: ListRows) -> list[Column]:
        """Return the rows as columns for COPY."""
        return [
            Ids(block.ids, self.owner_type, rows.owner),
            Scalars(rows.rank, ">i4"),
            Ids(items.ids.ids, self.item_type, rows.item),
            Scalars(rows.score, ">f8"),
            *([Ids(_REASONS, IdType.TEXT, rows.reason)] if self.reasons else []),
            Scalars(np.broadcast_to(np.int64(items.generation), len(rows)), ">i8"),
        ]

    def batches(self, items: Items) -> Callable[[Block, ListRows], pa.RecordBatch]:
        """Return a function that turns rows into a record batch of the schema of a file."""
        schema, item_ids = self.arrow, as_text(items.ids.ids, self.item_type)

        def batch(block: Block, rows: ListRows) -> pa.RecordBatch:
            columns = [
                as_text(block.ids, self.owner_type).take(pa.array(rows.owner)),
                rows.rank,
                item_ids.take(pa.array(rows.item)),
                rows.score,
                *([_REASONS.take(pa.array(rows.reason))] if self.reasons else []),
                np.full(len(rows), items.generation),
            ]
            return pa.record_batch(
                [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema
            )

        return batch


def recommended(typed: Registered | SourceShape) -> Shape:
    return Shape("recommend-all", "user_id", "item_id", typed.user_type, typed.item_type, reasons=True)


def similar(typed: Registered | SourceShape) -> Shape:
    return Shape("similar-all", "item_id", "similar_item_id", typed.item_type, typed.item_type, reasons=False)


def as_text(ids: pa.Array, kind: IdType) -> pa.Array:
    """Return uuids in their canonical text form, and ids of other types unchanged."""
    if kind is not IdType.UUID:
        return ids
    text = [each.hex() for each in ids.to_pylist()]  # a quarter of the time that uuid.UUID takes
    return pa.array(["-".join((t[:8], t[8:12], t[12:16], t[16:20], t[20:])) for t in text], pa.string())
