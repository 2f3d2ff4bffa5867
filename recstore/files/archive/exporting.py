"""Export a generation to one .npz, block by block: it need not fit into memory. Reads one snapshot, changes nothing."""

import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

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
from recstore.publication import erasing, generations, stored
from recstore.runs import Reporter, Silent
from recstore.sql import queries
from recstore.sql.generation import Generation
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
    start, watch = time.perf_counter(), reporter or Silent()
    with closing(connect(url, APPLICATION)) as connection, plain_errors(f"exporting {name!r}", connection):
        require_current(connection)
        recommender = registry.get(connection, name)
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            found, row, rows = _found(connection, recommender, generation, users)
            marked = generations.has_marks(connection, found)
            (exported,) = connection.execute(
                "SELECT pg_export_snapshot() AS snapshot, pg_current_snapshot()::text AS read_in"
            )
            doing = f"reading {found} of {name!r}"
            with (
                replacing(path) as draft,
                reading(url, APPLICATION, doing, snapshot=exported["snapshot"]) as transaction,
                Archive(draft) as archive,
            ):
                _Writing(transaction, found, row, rows, marked, watch).write(archive)
        if users and (warning := erasing.remain_in_file(connection, recommender, exported["read_in"])):
            watch.warn(warning)
    done = Written(
        file=str(path),
        recommender=name,
        generation=found.number,
        users=rows["user"],
        items=rows["item"],
        factors=row["factors"],
        bytes=path.stat().st_size,
    )
    summary = f"{done.items:,} items, {done.users:,} users, {done.factors} factors, {done.bytes / 1e6:,.1f} MB"
    watch.stage("export", time.perf_counter() - start, {"summary": summary})
    return done


def _found(
    connection: Connection, recommender: Registered, wanted: int | None, users: bool
) -> tuple[Generation, dict[str, Any], dict[str, int]]:
    """Return the generation, its row, and the number of rows to write of each side. Its tables can no longer be dropped."""
    found = generations.live(connection, recommender) if wanted is None else Generation(recommender, wanted)
    if found is None:
        raise NotTrained(name=recommender.name)
    row = queries.row(connection, "exported_generation", **found.keys)
    if row is None:
        raise GenerationNotFound(name=recommender.name, generation=found.number)
    try:
        (counts,) = connection.execute(
            f"SELECT (SELECT count(*) FROM {found.items}) AS item, (SELECT count(*) FROM {found.users}) AS user"  # noqa: S608
        )
    except pg.UndefinedTable:
        raise GenerationNotFound(name=recommender.name, generation=found.number) from None
    return found, row, counts if users else counts | {"user": 0}


@dataclass
class _Writing:
    transaction: Reading
    generation: Generation
    row: dict[str, Any]
    rows: dict[str, int]
    """Rows to write of each side: no users for a file without them."""
    marked: bool
    """True if the generation marks the rows that a refresh wrote."""
    reporter: Reporter
    done: int = 0

    def write(self, archive: Archive) -> None:
        archive.add("about", np.array(self._about().model_dump_json()))
        archive.add("mean_preference", np.array(self.row["mean_preference"], dtype=np.float32)[: self.row["factors"]])
        self._vectors(archive, "item", "embedding", {"length": np.float64, "users": np.int64, "views": np.float64})
        held_out = np.zeros(self.rows["item"], dtype=np.int64)
        if held := self.row["held_out"]:
            held_out[held["items"]] = held["counts"]
        archive.add("item_held_out", held_out)
        if self.marked:
            self._fold_in(archive)
        self._vectors(archive, "item", "preference")
        if self.rows["user"]:
            self._vectors(archive, "user", "preference", {"length": np.float64})

    def _fold_in(self, archive: Archive) -> None:
        """Add what the fold-in of a refreshed generation has of its training, which its items no longer determine."""
        basis = stored.basis(self.transaction, self.generation)
        if basis is not None:
            archive.add("basis", basis)
        collate = ' COLLATE "C"' if self.generation.recommender.item_type is IdType.TEXT else ""
        select = f"SELECT f.idf FROM {self.generation.fold_in} f ORDER BY f.item_id{collate}"  # noqa: S608
        idf = self.transaction.table(select)["idf"]
        if not idf.null_count:
            archive.add("item_idf", idf.to_numpy())

    def _vectors(
        self, archive: Archive, side: Literal["item", "user"], column: str, others: dict[str, type[Any]] | None = None
    ) -> None:
        """Stream one column of vectors into the file, rows in the order of the ids; then the ids, if `others` are given, and
        these other columns, which are kept in memory until then."""
        recommender, factors = self.generation.recommender, self.row["factors"]
        kind = recommender.item_type if side == "item" else recommender.user_type
        identifier, table = f"{side}_id", self.generation.table("items" if side == "item" else "users")
        kept = [identifier, *others] if others else []
        columns = ", ".join(f"v.{name}" for name in [f"{column}::real[] AS vector", *kept])
        marks = ""
        if others and self.marked:
            marks = f"LEFT JOIN {self.generation.refreshed} r ON r.{identifier} = v.{identifier}"
            columns += f", r.{identifier} IS NOT NULL AS refreshed"
            others = others | {"refreshed": np.bool_}
            kept.append("refreshed")
        order = f'v.{identifier} COLLATE "C"' if kind is IdType.TEXT else f"v.{identifier}"
        select = f"SELECT {columns} FROM {table} v {marks} ORDER BY {order}"  # noqa: S608
        found: dict[str, list[pa.Array]] = {name: [] for name in kept}
        dtype = np.dtype(np.float32 if self.row["vector_type"] == "vector" else np.float16)
        with archive.rows(f"{side}_{column}", (self.rows[side], factors), dtype) as write:
            for batch in self.transaction.batches(select):
                write(stored.block(batch["vector"], factors))
                everything = pa.array(np.arange(len(batch)))
                for name, arrays in found.items():  # copies: a column of a batch keeps all of it in memory
                    arrays.append(plain(batch[name]).take(everything))
                self.done += len(batch)
                total = 2 * self.rows["item"] + self.rows["user"]
                self.reporter.progress("export", self.done, total, f"{side}s, {column}")
        if others:
            ids = pa.concat_arrays(found[identifier]).cast(kind.arrow)
            for name, array in id_arrays(side, ids, kind).items():
                archive.add(name, array)
            for name, type in others.items():
                archive.add(f"{side}_{name}", np.concatenate(list(map(np.asarray, found[name]))).astype(type))

    def _about(self) -> About:
        row, held, recommender = self.row, self.row["held_out"], self.generation.recommender
        if held:
            held = {key: value for key, value in held.items() if key not in ("items", "counts")}
            held["key_digest"] = key_digest(recommender.held_out_key)
        same = ("training", "confidence", "fold_in", "filters", "metrics", "snapshot", "versions", "ready_at", "users")
        return About(
            recommender=recommender.name,
            generation=self.generation.number,
            exported_at=datetime.now(UTC),
            user_type=recommender.user_type,
            item_type=recommender.item_type,
            items=self.rows["item"],
            factors=row["factors"],
            longest=row["longest"],
            definition=row["definition"],
            held_out=held,
            **{name: row[name] for name in same},
        )
