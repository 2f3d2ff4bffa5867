"""Export a generation to one .npz, block by block: it need not fit into memory. Reads one snapshot, changes nothing."""

import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray
from psycopg import errors as pg

from recstore import registry
from recstore.atomic import check_place, replacing
from recstore.errors import GenerationNotFound, NotTrained
from recstore.files.archive.contents import About, id_arrays, key_digest
from recstore.model.interactions import plain
from recstore.postgres.arrow import Reading, reading
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.publication import generations, stored
from recstore.runs import Reporter, Silent
from recstore.sql import queries
from recstore.sql.generation import Generation, Side
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current
from recstore.types import IdType

APPLICATION = "recstore:export"

Write = Callable[[NDArray[Any]], None]


class Archive(zipfile.ZipFile):
    """A zip file without compression, since vectors do not shrink."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w", zipfile.ZIP_STORED)

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Add a whole array, which holds no Python objects."""
        with self.rows(name, array.shape, array.dtype) as write:
            write(array)

    @contextmanager
    def rows(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Write]:
        """Add an array of that shape, whose rows are written in blocks. Raises ValueError if their number differs."""
        expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        member = zipfile.ZipInfo(f"{name}.npy")
        member.external_attr = 0o600 << 16
        with self.open(member, "w", force_zip64=True) as stream:
            header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(stream, header)
            written = 0

            def write(block: NDArray[Any]) -> None:
                nonlocal written
                content = np.ascontiguousarray(block, dtype=dtype).tobytes()
                stream.write(content)
                written += len(content)

            yield write
            if written != expected:
                raise ValueError(f"{name}: {written} bytes of rows instead of {expected}")


@dataclass(frozen=True)
class Written:
    """The content of a written file; `users` is 0 if it was written without them."""

    file: str
    recommender: str
    generation: int
    users: int
    items: int
    factors: int
    bytes: int


def export(
    url: str,
    name: str,
    path: Path,
    *,
    generation: int | None = None,
    users: bool = True,
    reporter: Reporter | None = None,
) -> Written:
    """Write the live generation of recommender `name`, or that `generation`, to `path`, whole or not at all.

    An existing file is replaced. Without `users`, nothing about people is written. Memory holds ids, lengths and a block of
    vectors. Raises NotTrained, GenerationNotFound, ReportNotWritten, ConnectionLost.
    """
    check_place(path)
    start = time.perf_counter()
    connection = connect(url, APPLICATION)
    try:
        with plain_errors(f"exporting {name!r}", connection):
            require_current(connection)
            recommender = registry.get(connection, name)
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                row, rows = _found(connection, recommender, generation)
                snapshot = connection.execute("SELECT pg_export_snapshot() AS snapshot").fetchone()
                assert snapshot is not None
                doing = f"reading generation {row['generation']} of {name!r}"
                with (
                    replacing(path) as draft,
                    reading(url, APPLICATION, doing, snapshot=snapshot["snapshot"]) as transaction,
                ):
                    writing = _Writing(transaction, recommender, row, rows, reporter or Silent(), users)
                    with Archive(draft) as archive:
                        writing.write(archive)
    finally:
        connection.close()
    done = Written(
        file=str(path),
        recommender=name,
        generation=row["generation"],
        users=rows["users"] if users else 0,
        items=rows["items"],
        factors=row["factors"],
        bytes=path.stat().st_size,
    )
    summary = f"{done.items:,} items, {done.users:,} users, {done.factors} factors, {done.bytes / 1e6:,.1f} MB"
    (reporter or Silent()).stage("export", time.perf_counter() - start, {"summary": summary})
    return done


def _found(
    connection: Connection, recommender: Registered, wanted: int | None
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the generation's row, and the number of rows of its tables, which cannot be dropped from here on."""
    live = generations.live(connection, recommender)
    number = wanted if wanted is not None or live is None else live.number
    if number is None:
        raise NotTrained(name=recommender.name)
    keys = {"generation": number, "recommender_id": recommender.id}
    row = connection.execute(queries.query("exported_generation"), keys).fetchone()
    if row is None:
        raise GenerationNotFound(name=recommender.name, generation=number)
    try:
        counts = {
            side: connection.execute(
                f"SELECT count(*) AS rows FROM {Generation(recommender, number).table(side)}"  # noqa: S608
            ).fetchone()
            for side in ("items", "users")
        }
    except pg.UndefinedTable:
        raise GenerationNotFound(name=recommender.name, generation=number) from None
    return row, {side: count["rows"] for side, count in counts.items() if count}


@dataclass
class _Writing:
    transaction: Reading
    recommender: Registered
    row: dict[str, Any]
    rows: dict[str, int]
    reporter: Reporter
    users: bool
    done: int = 0

    def write(self, archive: Archive) -> None:
        archive.add("about", np.array(self._about().model_dump_json()))
        archive.add("mean_preference", np.array(self.row["mean_preference"], dtype=np.float32)[: self.row["factors"]])
        kind = self.recommender.item_type
        found = self._vectors(archive, "items", "item_id", kind, "embedding", ["length", "users", "views"])
        self._ids(archive, "item", kind, found["item_id"])
        archive.add("item_length", _numbers(found["length"], np.float64))
        archive.add("item_users", _numbers(found["users"], np.int64))
        archive.add("item_views", _numbers(found["views"], np.float64))
        archive.add("item_held_out", self._held_out())
        self._vectors(archive, "items", "item_id", kind, "preference", [])
        if self.users:
            kind = self.recommender.user_type
            found = self._vectors(archive, "users", "user_id", kind, "preference", ["length"])
            self._ids(archive, "user", kind, found["user_id"])
            archive.add("user_length", _numbers(found["length"], np.float64))

    def _vectors(
        self, archive: Archive, side: Side, identifier: str, kind: IdType, column: str, others: list[str]
    ) -> dict[str, list[pa.Array]]:
        """Stream one column of vectors into the file, rows in the order of the ids; return the ids and the other columns."""
        table = Generation(self.recommender, self.row["generation"]).table(side)
        order = f'v.{identifier} COLLATE "C"' if kind is IdType.TEXT else f"v.{identifier}"
        columns = ", ".join(f"v.{name}" for name in [identifier, *others])
        select = f"SELECT v.{column}::real[] AS vector, {columns} FROM {table} v ORDER BY {order}"  # noqa: S608
        found: dict[str, list[pa.Array]] = {name: [] for name in [identifier, *others]}
        factors = self.row["factors"]
        dtype = np.dtype(np.float32 if self.row["vector_type"] == "vector" else np.float16)
        with archive.rows(f"{side[:-1]}_{column}", (self.rows[side], factors), dtype) as write:
            for batch in self.transaction.batches(select):
                write(stored.block(batch["vector"], factors))
                everything = pa.array(np.arange(len(batch)))
                for name, arrays in found.items():  # copies: a column of a batch keeps all of it in memory
                    arrays.append(plain(batch[name]).take(everything))
                self.done += len(batch)
                total = 2 * self.rows["items"] + self.rows["users"] * self.users
                self.reporter.progress("export", self.done, total, f"{side}, {column}")
        return found

    def _ids(self, archive: Archive, side: str, kind: IdType, found: list[pa.Array]) -> None:
        ids = pa.concat_arrays([part.cast(kind.arrow) for part in found]) if found else pa.array([], kind.arrow)
        for name, array in id_arrays(side, ids, kind).items():
            archive.add(name, array)

    def _held_out(self) -> NDArray[np.int64]:
        counts = np.zeros(self.rows["items"], dtype=np.int64)
        if held := self.row["held_out"]:
            counts[held["items"]] = held["counts"]
        return counts

    def _about(self) -> About:
        row, held = self.row, self.row["held_out"]
        if held:
            held = {key: value for key, value in held.items() if key not in ("items", "counts")}
            held["key_digest"] = key_digest(self.recommender.held_out_key)
        return About(
            recommender=self.recommender.name,
            generation=row["generation"],
            exported_at=datetime.now(UTC),
            ready_at=row["ready_at"],
            user_type=self.recommender.user_type,
            item_type=self.recommender.item_type,
            users=row["users"],
            items=self.rows["items"],
            factors=row["factors"],
            definition=row["definition"],
            held_out=held,
            **{
                name: row[name]
                for name in ("training", "confidence", "fold_in", "filters", "metrics", "snapshot", "versions")
            },
        )


def _numbers(arrays: list[pa.Array], dtype: type[Any]) -> NDArray[Any]:
    return np.concatenate([np.asarray(array).astype(dtype) for array in arrays]) if arrays else np.zeros(0, dtype)
