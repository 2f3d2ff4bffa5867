"""What the rows of lists are: columns, types and keys of the tables and files, of both kinds of lists."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recstore.lists.blocks import REASONS, Block, Items, Lists
from recstore.publication.loading import Column, Ids, Scalars
from recstore.source.inspection import SourceShape
from recstore.sql.objects import Registered
from recstore.types import IdType

_REASONS = pa.array(REASONS)


@dataclass(frozen=True)
class Shape:
    """The rows of one command's output."""

    command: str
    owner: str
    item: str
    owner_type: IdType
    item_type: IdType
    reasons: bool

    @property
    def columns(self) -> dict[str, str]:
        """Name -> SQL type."""
        found = {self.owner: self.owner_type.value, "rank": "integer", self.item: self.item_type.value}
        found["score"] = "double precision"
        return found | ({"reason": "text"} if self.reasons else {}) | {"generation": "bigint"}

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    @property
    def key(self) -> tuple[str, str]:
        return (self.owner, "rank")

    def copied(self, items: Items, block: Block, lists: Lists, generation: int) -> list[Column]:
        """As COPY takes them."""
        columns: list[Column] = [
            Ids(block.ids, self.owner_type, lists.owner),
            Scalars(lists.rank, ">i4"),
            Ids(items.ids.ids, self.item_type, lists.item),
            Scalars(lists.score, ">f8"),
        ]
        columns += [Ids(_REASONS, IdType.TEXT, lists.reason)] if self.reasons else []
        return [*columns, Scalars(np.broadcast_to(np.int64(generation), len(lists)), ">i8")]

    @property
    def arrow(self) -> pa.Schema:
        """As files have them: ids that are uuid are text there."""
        kinds: dict[str, pa.DataType] = {
            self.owner: _in_files(self.owner_type),
            "rank": pa.int32(),
            self.item: _in_files(self.item_type),
            "score": pa.float64(),
        }
        kinds |= {"reason": pa.string()} if self.reasons else {}
        return pa.schema(kinds | {"generation": pa.int64()})

    def batches(self, items: Items, generation: int) -> Callable[[Block, Lists], pa.RecordBatch]:
        """Makes record batches of that schema."""
        item_ids = _as_text(items.ids.ids, self.item_type)

        def batch(block: Block, lists: Lists) -> pa.RecordBatch:
            arrays: list[Any] = [
                _as_text(block.ids, self.owner_type).take(pa.array(lists.owner)),
                pa.array(lists.rank, pa.int32()),
                item_ids.take(pa.array(lists.item)),
                pa.array(lists.score, pa.float64()),
            ]
            arrays += [_REASONS.take(pa.array(lists.reason))] if self.reasons else []
            arrays.append(pa.array(np.full(len(lists), generation), pa.int64()))
            return pa.record_batch(arrays, schema=self.arrow)

        return batch


def recommended(typed: Registered | SourceShape) -> Shape:
    return Shape("recommend-all", "user_id", "item_id", typed.user_type, typed.item_type, reasons=True)


def similar(typed: Registered | SourceShape) -> Shape:
    kind = typed.item_type
    return Shape("similar-all", "item_id", "similar_item_id", kind, kind, reasons=False)


def _in_files(kind: IdType) -> pa.DataType:
    return pa.string() if kind is IdType.UUID else kind.arrow


def _as_text(ids: pa.Array, kind: IdType) -> pa.Array:
    if kind is not IdType.UUID:
        return ids
    text = [each.hex() for each in ids.to_pylist()]
    return pa.array(["-".join((t[:8], t[8:12], t[12:16], t[16:20], t[20:])) for t in text], pa.string())
