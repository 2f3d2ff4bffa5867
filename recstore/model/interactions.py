"""From Arrow record batches to interactions: id maps, one value per (user, item) pair, and counts of unusable rows.

The step between the source and the filters; knows no database. Ids stay in the application's type; users and items are
positions in their `IdMap`.
"""

import hashlib
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from recstore.definition import Duplicates, Negative
from recstore.errors import SourceEmpty, SourceInvalid, TooManyNulls
from recstore.model.arrays import Index, Mask, Positions, Times, Values
from recstore.types import IdType

NO_TIME = int(np.iinfo(np.int64).min)
"""Time of a pair without a known time: older than all others."""

FOREVER = int(np.iinfo(np.int64).max)
"""Time `infinity`, and of every year that microseconds since 1970 cannot count: newer than all others."""

POSTGRES_EPOCH = 946_684_800_000_000
"""Microseconds from 1970 to 2000, where PostgreSQL begins to count."""

EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""First and last microsecond, from 1970, of the years 1 to 9999, which Python's datetime has."""

NOTHING = 1e-12
"""Share of the rows' absolute values up to which their sum is a rounding error."""

BLOCK_ROWS = 1 << 18
"""Rows whose ids are encoded at once, at least."""


@dataclass(frozen=True, eq=False)
class IdMap:
    """The ids of users or items in ascending order; the position of an id is its index.

    `ids` is an Arrow array of `IdType.arrow`, sorted as PostgreSQL sorts it (numbers by value, uuid by bytes, text by
    the bytes of its UTF-8 form, COLLATE "C"), without NULL or duplicates.
    """

    ids: pa.Array

    def __len__(self) -> int:
        return len(self.ids)

    def lookup(self, ids: pa.Array | pa.ChunkedArray) -> Index:
        """Return the int32 index of each of `ids`, -1 where the id is unknown or NULL. Other Arrow types of the same kind
        are accepted: any integer, large_string, arrow.uuid."""
        kind = pa.int64() if pa.types.is_integer(self.ids.type) else self.ids.type
        found = pc.index_in(plain(ids).cast(kind), value_set=self.ids.cast(kind), skip_nulls=True)
        return np.asarray(pc.fill_null(found, -1), dtype=np.int32)

    def take(self, index: Positions) -> pa.Array:
        """Return the ids at these positions, as an Arrow array of the map's type."""
        return self.ids.take(pa.array(index))

    def to_python(self, index: int) -> int | str | uuid.UUID:
        """Return the id at one position as int, str or uuid.UUID."""
        value: int | str | bytes = self.ids[index].as_py()
        return uuid.UUID(bytes=value) if isinstance(value, bytes) else value


@dataclass(frozen=True)
class SourceReport:
    """Counts of a source. The rows read are `nulls` (a NULL id; a NULL, NaN or infinite value) + `nonpositive` + `duplicates`
    (merged) + `pairs`. `mixed` pairs have negative rows, dropped, next to positive ones; where rows are netted, `nonpositive`
    counts pairs. `total` is the sum of the values, `newest` the latest last_at of a usable row up to the year
    9999."""

    rows: int
    nulls: int
    nonpositive: int
    duplicates: int
    pairs: int
    users: int
    items: int
    total: float
    newest: datetime | None
    mixed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for JSON, with `newest` in ISO 8601."""
        return asdict(self) | {"newest": self.newest.isoformat() if self.newest else None}


@dataclass(frozen=True, eq=False)
class Interactions:
    """Values of (user, item) pairs, sorted by user, then item; every pair once. One below 0 is a dislike, or a rating.

    `user_index`, `item_index` and `values` have one entry per pair. Every id of the maps occurs in at least one pair, except
    in a `part`.
    """

    users: IdMap
    items: IdMap
    user_index: Index
    item_index: Index
    values: Values
    times: Times | None = None
    """Time of the last interaction of each pair, or NO_TIME; None if times are unknown or were not requested."""
    rated: bool = False
    """Values are ratings."""

    def __len__(self) -> int:
        return len(self.values)

    def digest(self) -> str:
        """Return a hash of ids, values and times, which does not depend on the order of rows in the source."""
        digest = hashlib.blake2b(digest_size=16)
        for ids in (self.users.ids, self.items.ids):
            numbers = pa.types.is_integer(ids.type)
            digest.update(np.asarray(ids).tobytes() if numbers else repr(ids.to_pylist()).encode())
        for values in (self.user_index, self.item_index, self.values):
            digest.update(np.ascontiguousarray(values).data)
        if self.times is not None:
            digest.update(np.ascontiguousarray(self.times).data)
        return digest.hexdigest()

    def matrix(self, numbers: NDArray[Any] | None = None) -> sparse.csr_matrix:
        """Return a number for each pair, by default its value, as CSR, users x items, with sorted indices."""
        shape = len(self.users), len(self.items)
        pointers = np.concatenate(([0], np.cumsum(np.bincount(self.user_index, minlength=shape[0]))))
        return sparse.csr_matrix((self.values if numbers is None else numbers, self.item_index, pointers), shape=shape)

    @property
    def liked(self) -> Mask:
        """Return the pairs that are no dislikes."""
        return (self.values > 0) | self.rated

    def item_users(self) -> NDArray[np.int64]:
        """Return the number of users of each item, those who dislike it left out, int64 (items,)."""
        return np.bincount(self.item_index[self.liked], minlength=len(self.items))

    def subset(self, keep: Mask) -> "Interactions":
        """Return the pairs where `keep` is true, with both id maps reduced to the ids that are left."""
        return self.part(keep).shrunk(users=True, items=True)

    def part(self, keep: Mask) -> "Interactions":
        """Return the pairs where `keep` is true, with the same id maps, so that positions keep their meaning."""
        times = None if self.times is None else self.times[keep]
        return Interactions(
            self.users, self.items, self.user_index[keep], self.item_index[keep], self.values[keep], times, self.rated
        )

    def shrunk(self, *, users: bool, items: bool) -> "Interactions":
        """Return the same pairs, with the id maps of these sides reduced to the ids that occur in a pair."""
        user_side = _shrink(self.users, self.user_index) if users else (self.users, self.user_index)
        item_side = _shrink(self.items, self.item_index) if items else (self.items, self.item_index)
        return Interactions(user_side[0], item_side[0], user_side[1], item_side[1], self.values, self.times, self.rated)


class InteractionsBuilder:
    """Collects record batches of user_id, item_id, value and, optionally, last_at, in any order.

    Takes 16 bytes per usable row (24 with times) and the distinct ids. `name` is the recommender's, for messages.
    `with_times` keeps the newest last_at of each pair. Rows of 0 or less are dropped, unless `negative` is "drop" only after
    the rows of a pair are merged, if these are no dislikes; and of `ratings` not at all.
    """

    def __init__(
        self,
        user_type: IdType,
        item_type: IdType,
        duplicates: Duplicates,
        max_nulls: float,
        name: str,
        *,
        with_times: bool = False,
        negative: Negative = "drop",
        ratings: bool = False,
    ) -> None:
        self._users = _IdCodes(user_type)
        self._items = _IdCodes(item_type)
        self._duplicates = duplicates
        self._max_nulls = max_nulls
        self._name = name
        self._with_times = with_times
        self._merged_first = negative != "drop" and not ratings
        self._dislikes = negative == "dislike"
        self._ratings = ratings
        self._values: list[Values] = []
        self._times: list[Times] = []
        self._newest: int | None = None
        self._time = pa.timestamp("us")
        self._rows = self._nulls = self._nonpositive = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the usable rows of a batch and count the others."""
        user_ids, item_ids, value = (
            plain(batch["user_id"]),
            plain(batch["item_id"]),
            batch["value"].cast(pa.float64()),
        )
        complete = pc.and_(pc.and_(user_ids.is_valid(), item_ids.is_valid()), pc.fill_null(pc.is_finite(value), False))
        # negative rows are dropped in build(), which knows their pairs
        every = self._merged_first or self._ratings
        usable = complete if every else pc.and_(complete, pc.fill_null(pc.not_equal(value, 0), False))
        self._rows += len(batch)
        self._nulls += len(batch) - complete.true_count
        if not every:
            self._nonpositive += complete.true_count - pc.and_(complete, pc.greater(value, 0)).true_count
        if usable.true_count == 0:
            return
        if usable.true_count < len(batch):
            batch, user_ids, item_ids, value = (rows.filter(usable) for rows in (batch, user_ids, item_ids, value))
        self._users.add(user_ids)
        self._items.add(item_ids)
        values = value.to_numpy(zero_copy_only=False)
        self._values.append(values)
        if "last_at" in batch.schema.names:
            self._add_times(batch["last_at"], every | (values > 0))

    def build(self) -> tuple[Interactions, SourceReport]:
        """Return the interactions and the report. Call it once.

        The value of a pair with several rows is their sum, max or mean, or that of the last row: the row with the newest
        last_at (a missing one is the oldest), among equals the one read last.

        Raises:
            TooManyNulls: above `max_nulls`.
            SourceEmpty: without a usable row.
            SourceInvalid: if the sum of the values is not finite.
        """
        counts: dict[str, Any] = {"rows": self._rows, "nulls": self._nulls, "nonpositive": self._nonpositive}
        if self._nulls > self._max_nulls * self._rows:
            share = self._nulls / self._rows
            raise TooManyNulls(name=self._name, **counts, share=share, limit=self._max_nulls)
        if not self._values or self._nulls + self._nonpositive == self._rows:
            raise SourceEmpty(name=self._name, hidden="", **counts)
        values = np.concatenate(self._values)
        self._values.clear()
        times = np.concatenate(self._times) if self._times else None
        self._times.clear()
        with ThreadPoolExecutor(2) as both:
            (users, user_index), (items, item_index) = both.map(_IdCodes.finish, (self._users, self._items))
        mixed, positive = 0, (values > 0) | self._ratings
        if not self._merged_first and not positive.all():
            pairs = user_index * np.int64(len(items)) + item_index
            mixed = int(np.count_nonzero(np.isin(np.unique(pairs[~positive]), pairs[positive])))
            user_index, item_index, values = user_index[positive], item_index[positive], values[positive]
            times = times[positive] if times is not None else None

        shape, rows = (len(users), len(items)), len(values)
        if times is None:
            user_index, item_index, values = _sorted(user_index, item_index, shape, values)
        else:
            user_index, item_index, order = _sorted(user_index, item_index, shape, np.arange(rows))
            values, times = values[order], times[order]
        new_pair = np.ones(rows, dtype=np.bool_)
        new_pair[1:] = (item_index[1:] != item_index[:-1]) | (user_index[1:] != user_index[:-1])
        starts = np.flatnonzero(new_pair)
        if len(starts) < rows:
            merged = _merge(values, starts, self._duplicates, times)
            if self._merged_first and self._duplicates in ("sum", "mean"):
                merged[np.abs(merged) < np.add.reduceat(NOTHING * np.abs(values), starts)] = 0
            values = merged
            user_index, item_index = user_index[starts], item_index[starts]
            times = np.maximum.reduceat(times, starts) if times is not None and self._with_times else None
        duplicates = rows - len(values)
        if not self._with_times or (times is not None and times.max() == NO_TIME):
            times = None
        interactions = Interactions(users, items, user_index, item_index, values, times, self._ratings)
        if not positive.all():
            interactions = interactions.subset(values != 0 if self._dislikes else values > 0)
        if self._merged_first:
            counts["nonpositive"] = len(values) - len(interactions)
            if not len(interactions):
                raise SourceEmpty(name=self._name, hidden="", **counts)
        with np.errstate(over="ignore"):
            total = float(interactions.values.sum())
        if not np.isfinite(total):
            raise SourceInvalid(
                reason="the sum of its values is infinite", remedy="Scale the values down in the source."
            )
        newest = None if self._newest is None else pa.scalar(self._newest, self._time).as_py()
        about = {"users": len(interactions.users), "items": len(interactions.items), "pairs": len(interactions)}
        report = SourceReport(**counts, **about, duplicates=duplicates, total=total, newest=newest, mixed=mixed)
        return interactions, report

    def _add_times(self, last_at: pa.Array, used: Mask) -> None:
        """Add times in microseconds since 1970. PostgreSQL counts from 2000, and the driver's sum overflows for `infinity` and
        for years beyond 294246: they are the newest. `-infinity` is no time."""
        self._time = pa.timestamp("us", getattr(last_at.type, "tz", None))
        counted = pc.fill_null(last_at.cast(self._time).cast(pa.int64()), NO_TIME).to_numpy(zero_copy_only=False)
        since_2000 = counted - POSTGRES_EPOCH  # overflows back
        times = np.where(since_2000 > FOREVER - POSTGRES_EPOCH, FOREVER, counted)
        times[(since_2000 == NO_TIME) | (counted == NO_TIME)] = NO_TIME
        known = times[used & (times >= EARLIEST) & (times <= LATEST)]
        if len(known):
            self._newest = max(int(known.max()), EARLIEST if self._newest is None else self._newest)
        if self._with_times or self._duplicates == "last":
            self._times.append(times)


class _IdCodes:
    """The ids of users or items as int32 codes into the ids that are known so far, found in blocks of batches.

    A block has at least as many rows as there are known ids, since each is hashed for each block.
    """

    def __init__(self, id_type: IdType) -> None:
        self._type = id_type.arrow
        self._block: list[pa.Array] = []
        self._block_rows = 0
        self._known = pa.array([], self._type)
        self._codes: list[Index] = []

    def add(self, ids: pa.Array) -> None:
        self._block.append(ids.cast(self._type))
        self._block_rows += len(ids)
        if self._block_rows >= max(BLOCK_ROWS, len(self._known)):
            self._encode()

    def finish(self) -> tuple[IdMap, Index]:
        """Return the id map and the index of each row in it. Call it once."""
        self._encode()
        order = pc.sort_indices(self._known)
        rank = np.empty(len(order), dtype=np.int32)
        rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        codes = np.concatenate(self._codes)
        self._codes.clear()
        return IdMap(self._known.take(order)), rank[codes]

    def _encode(self) -> None:
        if not self._block:
            return
        ids = pa.concat_arrays(self._block)
        self._block, self._block_rows = [], 0
        found = pc.index_in(ids, value_set=self._known)
        codes = np.array(pc.fill_null(found, 0))
        if found.null_count:
            new = ids.filter(found.is_null()).dictionary_encode()
            codes[np.asarray(found.is_null())] = np.asarray(new.indices) + len(self._known)
            self._known = pa.concat_arrays([self._known, new.dictionary])
        self._codes.append(codes)


def plain(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return ids without their extension type, large strings as strings."""
    if isinstance(ids.type, pa.BaseExtensionType):
        return ids.cast(ids.type.storage_type)
    return ids.cast(pa.string()) if pa.types.is_large_string(ids.type) else ids


def _sorted(
    user_index: Index, item_index: Index, shape: tuple[int, int], numbers: NDArray[Any]
) -> tuple[Index, Index, NDArray[Any]]:
    """Return all three sorted by user, then item, stably and in linear time: as a sparse matrix is transposed, twice.

    9 million rows take 0.2 s; NumPy's stable sort of a combined key takes 1.2 s."""
    entries = sparse.coo_matrix((numbers, (item_index, user_index)), shape=shape[::-1])
    entries.has_canonical_format = True  # or tocsr() would add duplicates up
    by_user = entries.tocsr().tocsc()
    users = np.repeat(np.arange(shape[0], dtype=np.int32), np.diff(by_user.indptr))
    return users, by_user.indices.astype(np.int32, copy=False), by_user.data


def _merge(values: Values, starts: NDArray[np.intp], how: Duplicates, times: Times | None) -> Values:
    """Return one value per pair, whose rows are consecutive from `starts`, in reading order."""
    ends = np.append(starts[1:], len(values))
    with np.errstate(over="ignore"):
        match how:
            case "sum":
                return np.add.reduceat(values, starts)
            case "mean":
                return np.add.reduceat(values / np.repeat(ends - starts, ends - starts), starts)
            case "max":
                return np.maximum.reduceat(values, starts)
            case "last" if times is None:
                return np.take(values, ends - 1)
            case "last":
                newest = np.repeat(np.maximum.reduceat(times, starts), ends - starts)
                rows = np.where(times == newest, np.arange(len(values)), -1)
                return np.take(values, np.maximum.reduceat(rows, starts))


def _shrink(ids: IdMap, index: Index) -> tuple[IdMap, Index]:
    """Return the ids that `index` uses as a map of their own, and the index into it."""
    used = np.zeros(len(ids), dtype=np.bool_)
    used[index] = True
    if used.all():
        return ids, index
    position = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return IdMap(ids.ids.filter(pa.array(used))), position[index]
