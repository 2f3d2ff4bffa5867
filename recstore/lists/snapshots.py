"""Read one snapshot for lists: the live generation's items and users, the items seen by each user, the eligible items.

A READ ONLY, REPEATABLE READ transaction over Arrow is held until the last list is computed, so that all lists show one moment
and no prune removes the generation. Users arrive in batches with their seen items, aggregated by the server; one or two
batches are in memory at a time.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from recstore.errors import InvalidInput, NotTrained, PermissionDenied, RecstoreError
from recstore.lists.blocks import REASONS, Block, Items, ListRows
from recstore.model.arrays import Mask, Matrix
from recstore.model.interactions import IdMap, plain
from recstore.model.ratings import Ratings
from recstore.postgres.arrow import Reading, decoded_vectors, reading
from recstore.postgres.connection import Connection, reading_application
from recstore.postgres.names import quoted
from recstore.source.plans import planned
from recstore.source.selects import columns_of, stripped
from recstore.sql.generation import Generation
from recstore.sql.objects import Registered, counts_as_seen

BATCH_BYTES = 8 << 20
"""Bytes of a batch: about 20,000 users with vectors of 64 dimensions."""

SIMILAR_BLOCK = 4096
"""Owners in a block of lists of similar items."""

LIVE = """
SELECT l.generation, l.users, l.max_item_length, l.seen_published, g.factors, pg_current_snapshot()::text,
    g.confidence::text
FROM {schema}._generation l
JOIN recstore_private.generations g ON g.generation = l.generation
"""

ITEMS = """
SELECT v.item_id, {extension}.{vector_type}_send(v.{column}) AS vector, v.users, v.views, {eligible} AS eligible
FROM {items} v
"""

FOLDED_IN = """
LEFT JOIN LATERAL (
    SELECT (q.v).* FROM (SELECT {schema}._query_vector(l, a.user_id) AS v FROM {schema}._generation l OFFSET 0) q
    WHERE CASE WHEN a.preference IS NULL THEN {fold_first} ELSE {fresh} END
) f ON true
"""
"""The vector of a user `a` who came after the training, unless other steps come first; if the recommender answers from current
rows, of any user."""

SEEN = "SELECT i.user_id, i.item_id, true AS views FROM {interactions} i WHERE {counts}"

EXCLUDED = """
UNION ALL SELECT e.user_id::{user_type}, e.item_id::{item_type}, false FROM {exclusions} e
WHERE e.user_id {user_fits} AND e.item_id {item_fits}
"""

USERS = """
SELECT a.user_id, {extension}.{vector_type}_send(coalesce(f.preference, a.preference)) AS vector,
    coalesce(f.length, a.length) AS length, f.reason IS NOT DISTINCT FROM 'fold_in' AS folded_in, a.seen
FROM (
    SELECT coalesce(u.user_id, s.user_id) AS user_id, u.preference, u.length, s.seen, s.views
    FROM {users} u
    FULL JOIN (
        SELECT i.user_id, array_agg(i.item_id) AS seen, bool_or(i.views) AS views FROM ({left_out}) i GROUP BY i.user_id
    ) s ON s.user_id = u.user_id
) a {folded_in}
WHERE a.length IS NOT NULL OR f.length IS NOT NULL OR ({fold_later} AND a.views)
"""
"""All users of the generation, and those who came after the training and can be folded in, or have interactions where other
steps come first."""

ASKED = """
WITH asked AS MATERIALIZED (
    SELECT DISTINCT q.user_id::{user_type} AS user_id FROM (
{query}
    ) q (user_id) WHERE q.user_id IS NOT NULL
)
SELECT a.user_id, {extension}.{vector_type}_send(coalesce(f.preference, a.preference)) AS vector,
    coalesce(f.length, a.length) AS length, f.reason IS NOT DISTINCT FROM 'fold_in' AS folded_in, s.seen
FROM (SELECT a.user_id, u.preference, u.length FROM asked a LEFT JOIN {users} u ON u.user_id = a.user_id) a {folded_in}
LEFT JOIN (
    SELECT i.user_id, array_agg(i.item_id) AS seen
    FROM ({left_out}) i
    WHERE i.user_id IN (SELECT a.user_id FROM asked a)
    GROUP BY i.user_id
) s ON s.user_id = a.user_id
"""
"""The query of recommend(), for many users. Users without usable interactions are included, without a vector."""

ANSWERED = """
SELECT a.place - 1 AS owner, r.rank, r.item_id, r.score, r.reason
FROM unnest({ids}::{user_type}[]) WITH ORDINALITY a (user_id, place)
CROSS JOIN LATERAL {schema}.recommend(a.user_id, {k}) WITH ORDINALITY r (item_id, score, reason, rank)
ORDER BY 1, 2
"""
"""The lists of these users, one by one."""


@dataclass(frozen=True)
class Live:
    """The live generation of the snapshot, by the columns of LIVE."""

    generation: int
    users: int
    max_item_length: float
    seen_published: bool
    factors: int
    snapshot: str
    confidence: str

    @property
    def ratings(self) -> Ratings | None:
        """Return the scale of the ratings, with explicit feedback."""
        return Ratings.restored(json.loads(self.confidence))


PLANNING = 60.0
"""Seconds that a plan of the caller's query may take."""


def checked_query(connection: Connection, recommender: Registered, query: str) -> str:
    """Return `query` if it is one SELECT whose first column can be a user id. Raises InvalidInput, PermissionDenied."""
    select, kind = stripped(query), recommender.user_type.value

    def invalid(*, reason: str, remedy: str) -> InvalidInput:  # noqa: ARG001
        return InvalidInput(
            f"--users cannot be read: {reason}. Give a SELECT whose first column is the user id, of type {kind}; try it in"
            " psql first."
        )

    columns_of(connection, select, invalid, "the relations that --users reads")
    columns_of(connection, f"SELECT q.user_id::{kind} FROM (\n{select}\n) q (user_id)", invalid, "them")  # noqa: S608
    return select


def expected_users(connection: Connection, query: str) -> int:
    """Return the planner's estimate of the number of users, for a progress bar."""
    with reading_application(connection, PLANNING):
        return int(planned(connection, sql.SQL(query), prepare=True)["Plan Rows"])


class Snapshot:
    """Reads from the transaction. Raises NotTrained, ConnectionLost, PermissionDenied, RecstoreError."""

    def __init__(self, transaction: Reading, recommender: Registered) -> None:
        self.transaction, self.recommender = transaction, recommender
        self.asking = False  # True while the caller's own query is read
        row = transaction.row(LIVE.format(schema=recommender.schema))
        if row is None:
            raise NotTrained(name=recommender.name)
        self.live = Live(*row)
        self.generation = Generation(recommender, self.live.generation)

    def items(self, column: str) -> Items:
        """Return all items of the generation with the vectors in `column` (preference or embedding)."""
        recommender = self.recommender
        candidates = f"EXISTS (SELECT FROM {recommender.relation('candidates')} c WHERE c.item_id = v.item_id)"
        select = ITEMS.format(
            extension=quoted(recommender.vector_schema),
            vector_type=recommender.vector_type,
            column=column,
            eligible=candidates if recommender.definition.candidates.given else "true",
            items=self.generation.items,
        )
        table = joined(self.transaction.table(select))
        ids = plain(table["item_id"].combine_chunks()).cast(recommender.item_type.arrow)
        order = pc.sort_indices(ids)
        table = table.take(order)
        vectors, present = self._vectors(table["vector"].combine_chunks())
        if column == "embedding" and present.any():  # half precision has no exact unit length; the SQL cosine divides
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors /= np.where(lengths > 0, lengths, 1)
        return Items(
            IdMap(ids.take(order)),
            vectors,
            present,
            np.asarray(table["eligible"]).astype(np.bool_),
            table["users"].to_numpy().astype(np.int64),
            table["views"].to_numpy(),
            self.live.generation,
        )

    def users_select(self, query: str | None) -> str:
        """Return the SELECT of users with their vectors, seen items and exclusions: all users, or those that `query` names."""
        recommender, generation, definition = self.recommender, self.generation, self.recommender.definition
        fold_first = definition.steps[0] == "fold_in"
        published, user, item = self.live.seen_published, recommender.user_type, recommender.item_type
        left_out = (SEEN + EXCLUDED * (definition.exclusions.query is not None)).format(
            interactions=generation.seen if published else recommender.relation("interactions"),
            counts="true" if published else f"i.item_id IS NOT NULL AND {counts_as_seen(recommender.definition)}",
            exclusions=recommender.relation("exclusions"),
            user_type=user.value,
            user_fits=user.fits_sql,
            item_type=item.value,
            item_fits=item.fits_sql,
        )
        return (USERS if query is None else ASKED).format(
            extension=quoted(recommender.vector_schema),
            vector_type=recommender.vector_type,
            user_type=user.value,
            users=generation.users,
            left_out=left_out,
            folded_in=FOLDED_IN.format(
                schema=recommender.schema, fresh=definition.refresh.fresh, fold_first=fold_first
            ),
            fold_later="fold_in" in definition.steps and not fold_first,
            query=query,
        )

    def users(self, items: Items, query: str | None = None) -> Iterator[Block]:
        """Yield blocks of all users, or of those that `query` names (see `checked_query`)."""
        self.asking = query is not None
        for batch in self.transaction.batches(self.users_select(query)):
            if batch.num_rows:
                yield self._block(batch, items)

    def answered(self, ids: pa.Array, items: Items, k: int) -> tuple[ListRows, Items]:
        """Return the lists that recommend() gives these users, and the items in them, also those of no generation."""
        kind, users = self.recommender.item_type, IdMap(ids)
        table = self.transaction.table(
            ANSWERED.format(
                schema=self.recommender.schema,
                user_type=self.recommender.user_type.value,
                ids=sql.Literal([str(users.to_python(n)) for n in range(len(ids))]).as_string(None),
                k=k,
            )
        ).combine_chunks()
        listed = plain(table["item_id"].combine_chunks()).cast(kind.arrow)
        known = pc.unique(listed)
        known = IdMap(known.take(pc.sort_indices(known)))
        owner, rank = (table[name].to_numpy().astype(np.int64) for name in ("owner", "rank"))
        reason = pc.index_in(table["reason"].combine_chunks(), pa.array(REASONS)).to_numpy().astype(np.int64)
        rows = ListRows(owner, rank, known.lookup(listed).astype(np.int64), table["score"].to_numpy(), reason)
        return rows, replace(items, ids=known)

    def _block(self, batch: pa.RecordBatch, items: Items) -> Block:
        vectors, present = self._vectors(batch["vector"])
        length = pc.fill_null(batch["length"], 0.0).to_numpy(zero_copy_only=False)
        counts = pc.fill_null(pc.list_value_length(batch["seen"]), 0).to_numpy(zero_copy_only=False)
        return Block(
            ids=plain(batch["user_id"]).cast(self.recommender.user_type.arrow),
            vectors=vectors,
            present=present,
            folded_in=np.asarray(batch["folded_in"]).astype(np.bool_),
            factor=length * self.live.max_item_length,
            seen_starts=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))),
            seen=items.ids.lookup(pc.list_flatten(batch["seen"])),
        )

    def _vectors(self, sent: pa.Array) -> tuple[Matrix, Mask]:
        """Return vectors in pgvector's binary form as float32 (rows, factors), zeros for NULL."""
        present = np.asarray(sent.is_valid())
        vectors = np.zeros((len(sent), self.live.factors), dtype=np.float32)
        if present.any():
            decoded = decoded_vectors(pc.drop_null(sent), self.recommender.vector_type)
            vectors[present] = decoded[:, : self.live.factors]
        return vectors, present


def joined(table: pa.Table) -> pa.Table:
    """Return the table in one chunk. The vectors get 64-bit offsets, since they may exceed 2 GB."""
    place = table.column_names.index("vector")
    return table.set_column(place, "vector", table["vector"].cast(pa.large_binary())).combine_chunks()


def item_blocks(items: Items) -> Iterator[Block]:
    """Yield blocks of the items that have a vector, as owners of lists. An item counts as seen by itself."""
    owners = np.flatnonzero(items.present)
    for start in range(0, len(owners), SIMILAR_BLOCK):
        part = owners[start : start + SIMILAR_BLOCK]
        yield Block(
            ids=items.ids.take(part),
            vectors=items.vectors[part],
            present=np.ones(len(part), dtype=np.bool_),
            folded_in=np.zeros(len(part), dtype=np.bool_),
            factor=np.ones(len(part)),
            seen_starts=np.arange(len(part) + 1, dtype=np.int64),
            seen=part,
        )


@contextmanager
def snapshot(url: str, recommender: Registered, application_name: str, role: str) -> Iterator[Snapshot]:
    """Yield a snapshot, whose transaction ends with the context. `role` is the reading role, for error messages."""
    taken: Snapshot | None = None

    def refused(state: str, reason: str) -> RecstoreError:
        reason = reason.rstrip(" .")
        if state == "42501":
            return PermissionDenied(role=role, reason=reason, remedy="Ask the owner to grant it SELECT.")
        if taken is not None and taken.asking:
            return RecstoreError(
                f"No list of {recommender.name!r} was written: the SELECT of --users failed: {reason}. Try it in psql first."
            )
        return RecstoreError(f"No list of {recommender.name!r} was written: {reason}.")

    doing = f"making lists of {recommender.name!r}"
    with reading(url, application_name, doing, refused=refused, batch_bytes=BATCH_BYTES) as transaction:
        taken = Snapshot(transaction, recommender)
        yield taken
