"""Pull interactions from the source's view, the first stage of a retrain.

Reads over Arrow in one READ ONLY, REPEATABLE READ transaction with a timeout; nothing here writes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from recstore.config import Settings
from recstore.definition import Source
from recstore.errors import PermissionDenied, RecstoreError, SourceInvalid, SourceTimeout
from recstore.model.interactions import Interactions, InteractionsBuilder, SourceReport
from recstore.postgres.arrow import reading
from recstore.postgres.connection import Connection, inherited_path
from recstore.source import inspection
from recstore.sql.objects import Registered

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
        recommender.user_type, recommender.item_type, source.duplicates, source.max_nulls, name, with_times=with_times
    )
    expected, path, role = inspection.expected_rows(connection, name), inherited_path(connection), connection.info.user

    def refused(state: str, reason: str) -> RecstoreError:
        if state == "57014":
            return SourceTimeout(name=name, seconds=f"{settings.source_timeout:g}")
        if state == "42501":
            remedy = f"Grant it SELECT on the source's tables. The live generation of {name!r} stays."
            return PermissionDenied(role=role, reason=reason, remedy=remedy)
        return SourceInvalid(
            reason=reason, remedy=f"The live generation of {name!r} stays; fix the source and retrain."
        )

    doing = f"reading the source of {name!r}"
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
    interactions, report = builder.build()
    return Pulled(interactions, report, {"taken_at": taken_at, "snapshot": snapshot, "digest": interactions.digest()})
