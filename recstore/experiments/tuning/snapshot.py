"""Store a split as bytes and restore it, so that every trial of a search works on the same data. Pure.

One row of Arrow lists, compressed: the ids of both sides, and each pair's positions, value and part. Times are left out,
since the split is made.
"""

import json

import numpy as np
import pyarrow as pa

from recstore.evaluation.splits import Split
from recstore.model.interactions import IdMap, Interactions

_PARTS = ("train", "validation", "test")


def pack(split: Split) -> bytes:
    """Return the split's Arrow IPC stream."""
    parts = [(code, part) for code, name in enumerate(_PARTS) if (part := getattr(split, name)) is not None]
    columns = {
        "users": split.train.users.ids,
        "items": split.train.items.ids,
        "user_index": pa.array(np.concatenate([part.user_index for _, part in parts]), pa.int32()),
        "item_index": pa.array(np.concatenate([part.item_index for _, part in parts]), pa.int32()),
        "value": pa.array(np.concatenate([part.values for _, part in parts]), pa.float64()),
        "part": pa.array(np.concatenate([np.full(len(part), code, np.int8) for code, part in parts]), pa.int8()),
    }
    lists = {name: pa.LargeListArray.from_arrays([0, len(values)], values) for name, values in columns.items()}
    described = json.dumps({"how": split.how, "notes": list(split.notes)})
    row = pa.RecordBatch.from_pydict(lists).replace_schema_metadata({"split": described})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(row)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack(content: bytes) -> Split:
    """Return the split of these bytes, without times."""
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        row = reader.read_next_batch()
    described = json.loads(row.schema.metadata[b"split"])
    columns = {name: row[name].flatten() for name in row.schema.names}
    pairs = [columns[name].to_numpy() for name in ("user_index", "item_index", "value")]
    whole = Interactions(IdMap(columns["users"]), IdMap(columns["items"]), *pairs)
    train, validation, test = (whole.part(columns["part"].to_numpy() == code) for code in range(len(_PARTS)))
    return Split(train, validation if len(validation) else None, test, described["how"], tuple(described["notes"]))
