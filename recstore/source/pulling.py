"""Pull interactions from the source's view, the first stage of a retrain.

Reads over Arrow in one READ ONLY, REPEATABLE READ transaction with a timeout; nothing here writes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from recstore.config import Settings
from recstore.definition import Source
from recstore.errors import PermissionDenied, RecstoreError, SourceEmpty, SourceInvalid, SourceTimeout
from recstore.model.interactions import Interactions, InteractionsBuilder, SourceReport
from recstore.postgres.arrow import reading
from recstore.postgres.connection import Connection, inherited_path, role_of
from recstore.source import inspection
from recstore.sql import objects, queries
from recstore.sql.objects import Registered
from recstore.types import MAX_ID_BYTES, IdType
from recstore.wording import counted

OnRows = Callable[[int, int], None]
"""Receives (rows read so far, rows the planner expects)."""


class Pulled(NamedTuple):
    """The interactions, the counts of rows, and the snapshot's time, number and digest."""

    interactions: Interactions
    report: SourceReport
    snapshot: dict[str, Any]

    def details(self) -> dict[str, Any]:
        return self.report.as_dict() | self.snapshot

    def __str__(self) -> str:
        report = self.report
        dropped = (
            (report.nulls, "with NULL or NaN dropped"),
            (report.nonpositive, "zero or negative dropped"),
            (report.mixed, "of their pairs have positive rows too"),
            (report.duplicates, "duplicates merged"),
        )
        parts = [f"{report.rows:,} rows: {report.users:,} users, {report.items:,} items"]
        return ", ".join(parts + [f"{count:,} {words}" for count, words in dropped if count])


def read(
    connection: Connection,
    url: str,
    settings: Settings,
    recommender: Registered,
    source: Source,
    *,
    application_name: str,
    with_times: bool = False,
    on_rows: OnRows | None = None,
) -> Pulled:
    """Read the whole source of a recommender in one snapshot; `with_times` with the time of each pair, if it has last_at.
    `connection` looks at the source before, under the same search_path.

    Return the interactions, rows dropped and merged as `source` says; the counts; and the snapshot's time, number and digest.
    Raises SourceTimeout, SourceInvalid, TooManyNulls, SourceEmpty, PermissionDenied, ConnectionLost.
    """
    name, view = recommender.name, recommender.relation("interactions")
    last_at = ", i.last_at::pg_catalog.timestamptz AS last_at" if inspection.has_last_at(connection, name) else ""
    select = f"SELECT i.user_id, i.item_id, i.value::pg_catalog.float8 AS value{last_at} FROM {view} i"  # noqa: S608
    builder = InteractionsBuilder(
        recommender.user_type,
        recommender.item_type,
        source.duplicates,
        source.max_nulls,
        name,
        with_times=with_times,
        negative=source.negative,
        ratings=source.explicit,
    )
    stays = f"The live generation of {name!r} stays."
    expected, path, role = inspection.expected_rows(connection, name), inherited_path(connection), role_of(connection)

    def refused(state: str, reason: str) -> RecstoreError:
        if len(reason) > 300:  # a number of hundreds of digits
            reason = f"{reason[:100]}..{reason[-100:]}"
        if state == "57014":
            return SourceTimeout(name=name, seconds=f"{settings.source_timeout:g}")
        if state == "42501":
            grants = " ".join(objects.lacking_on(connection, recommender, "interactions", role))
            grant = f"Have the owner run: {grants}" if grants else "Grant it SELECT on the source's tables."
            return PermissionDenied(role=role, reason=reason, remedy=f"{grant} {stays}")
        if state == "22021":
            remedy = f"The database stores bytes that are no UTF-8. Exclude or convert these texts in a query. {stays}"
            return SourceInvalid(reason=reason, remedy=remedy)
        return SourceInvalid(reason=reason, remedy=f"Fix the source and retrain. {stays}")

    doing = f"reading the source of {name!r}"
    with _explained(connection, recommender):
        with reading(
            url, application_name, doing, refused=refused, timeout=settings.source_timeout, application_path=path
        ) as transaction:
            row = transaction.row(
                "SELECT pg_catalog.now()::pg_catalog.text, pg_catalog.pg_current_snapshot()::pg_catalog.text"
            )
            assert row is not None
            taken_at, snapshot = row
            rows = 0
            for batch in transaction.batches(select):
                builder.add(batch)
                rows += batch.num_rows
                if on_rows:
                    on_rows(rows, max(rows, expected))
        interactions, report = builder.build()  # without a transaction
        pa.default_memory_pool().release_unused()  # what Arrow keeps of the batches: 30 bytes per row
        _check_lengths(interactions, recommender, source)
    return Pulled(interactions, report, {"taken_at": taken_at, "snapshot": snapshot, "digest": interactions.digest()})


@contextmanager
def _explained(connection: Connection, recommender: Registered) -> Iterator[None]:
    """Complete an error: name row-level security that may hide every row, and no live generation where there is none."""
    try:
        yield
    except RecstoreError as error:
        with suppress(psycopg.Error):  # a lost connection
            if isinstance(error, SourceEmpty) and not error.rows:
                hiding = ", ".join(inspection.limited(connection, recommender.name))
                seen = f" Row-level security is on for {hiding}, and {role_of(connection)} sees only what the policies show."
                hidden = f"{seen} For the remedy: recstore doctor {recommender.name}." if hiding else ""
                error = SourceEmpty(name=recommender.name, rows=0, nulls=0, nonpositive=0, hidden=hidden)
            if queries.row(connection, "live_size", recommender_id=recommender.id) is None:
                error.leave_out_live()
        raise error


def _check_lengths(interactions: Interactions, recommender: Registered, source: Source) -> None:
    """Refuse text ids that an index of the generation cannot hold. Raises SourceInvalid."""
    sides = (("user", interactions.users, recommender.user_type), ("item", interactions.items, recommender.item_type))
    both = source.seen == "published" and all(kind is IdType.TEXT for _, _, kind in sides)
    most = MAX_ID_BYTES // 2 if both else MAX_ID_BYTES  # the index of seen items holds both
    for side, ids, kind in sides:
        if kind is not IdType.TEXT:
            continue
        lengths = pc.binary_length(ids.ids).to_numpy()
        long = np.flatnonzero(lengths > most)
        if len(long):
            first, number = str(ids.to_python(int(long[0]))), counted(len(long), f"{side} id")
            raise SourceInvalid(
                reason=f"{number} {'is' if len(long) == 1 else 'are'} longer than {most:,} bytes, the most that an index is sure"
                f" to hold; the first has {lengths[long[0]]:,} bytes and begins with {first[:60]!r}",
                remedy=f"Use a surrogate key or a hash, for example md5({side}_id) AS {side}_id in a query."
                f" The live generation of {recommender.name!r} stays.",
            )
