"""A split as bytes and back, so that every trial of a search, wherever and whenever, works on the very same data. Pure.

One row of Arrow lists, compressed: the ids of both sides, and each pair's positions, value and part. Times are left out: the
split is made.
"""

import json

import numpy as np
import pyarrow as pa

from recstore.evaluation.splits import Split
from recstore.model.interactions import IdMap, Interactions

_PARTS = ("train", "validation", "test")


def pack(split: Split) -> bytes:
    """The split's Arrow IPC stream."""
    parts = [part for name in _PARTS if (part := getattr(split, name)) is not None]
    codes = [code for code, name in enumerate(_PARTS) if getattr(split, name) is not None]
    columns = {
        "users": split.train.users.ids,
        "items": split.train.items.ids,
        "user_index": pa.array(np.concatenate([part.user_index for part in parts]), pa.int32()),
        "item_index": pa.array(np.concatenate([part.item_index for part in parts]), pa.int32()),
        "value": pa.array(np.concatenate([part.values for part in parts]), pa.float64()),
        "part": pa.array(np.repeat(np.array(codes, np.int8), [len(part) for part in parts]), pa.int8()),
    }
    lists = {name: pa.LargeListArray.from_arrays([0, len(values)], values) for name, values in columns.items()}
    told = {"how": split.how, "notes": list(split.notes)}
    row = pa.RecordBatch.from_pydict(lists).replace_schema_metadata({"split": json.dumps(told)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(row)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack(content: bytes) -> Split:
    """The split that `pack` was given, without times."""
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        row = reader.read_next_batch()
    told = json.loads(row.schema.metadata[b"split"])
    columns = {name: row[name].flatten() for name in row.schema.names}
    part = columns["part"].to_numpy()
    whole = Interactions(
        IdMap(columns["users"]),
        IdMap(columns["items"]),
        columns["user_index"].to_numpy(),
        columns["item_index"].to_numpy(),
        columns["value"].to_numpy(),
    )
    found = {name: whole.part(part == code) for code, name in enumerate(_PARTS)}
    validation = found["validation"] if len(found["validation"]) else None
    return Split(found["train"], validation, found["test"], told["how"], tuple(told["notes"]))
