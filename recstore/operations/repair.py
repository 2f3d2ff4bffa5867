"""Find and repair where the database has changed around a recommender's schema: views of tables that were renamed or swapped,
dropped views, row-level security of an event trigger. Knows no generation."""

from contextlib import suppress
from functools import partial

from psycopg import errors as pg

from recstore import registry
from recstore.config import Settings
from recstore.errors import CandidatesInvalid, ExclusionsInvalid, FallbackInvalid, PermissionDenied, SourceInvalid
from recstore.postgres.connection import Connection, plain_errors, with_short_lock
from recstore.source import candidates
from recstore.sql import objects, queries
from recstore.sql.objects import CONFIGURED, Registered


def stale_views(connection: Connection, recommender: Registered) -> dict[str, str]:
    """Return the views of the application's SELECTs that differ from what the definition makes now -> which relations they
    read and which it names. A view follows relations and columns through a rename or a swap; compared with a view that is
    rolled back. Other roles than the owner, whose search_path may differ, find none."""
    found = {}
    for name, select in zip(CONFIGURED, registry.selects_of(connection, recommender), strict=True):
        if select:
            with candidates.tried(connection, recommender, select) as new:
                views = {"present": recommender.relation(name), "new": recommender.relation(new)}
                row = queries.row(connection, "compare_views", **views)
            if row and row["differ"]:
                former, named = (", ".join(row[side]) or "other columns" for side in ("former", "named"))
                found[name] = f"{former} instead of {named}"
    return found


def drift(connection: Connection, recommender: Registered) -> list[str]:
    """Return a phrase for each way in which a recommender's schema no longer fits the database around it: missing or outdated
    objects, views of other relations than the definition names, row-level security. Raises psycopg's errors, RecstoreError."""
    found = [f"the {name} is missing" for name in objects.missing(connection, recommender)]
    if not found:
        outdated = objects.stale(connection, recommender)
        found += [f"the {name} was made for pgvector's former schema, or by another version" for name in outdated[:1]]
        try:
            stale = stale_views(connection, recommender)
            found += [f"the view {view} reads {what}" for view, what in stale.items()]
        except (SourceInvalid, CandidatesInvalid, FallbackInvalid, ExclusionsInvalid) as refused:
            found.append(refused.message.rstrip("."))
    rows = queries.rows(connection, "own_row_security", schema=recommender.name)
    return found + [f"row-level security is on for {row['relation']}" for row in rows]


def restore_views(connection: Connection, settings: Settings, recommender: Registered) -> dict[str, str]:
    """Recreate the views of the application's SELECTs where they are missing, with their grants, and where they read other
    relations than the definition names; return their names and what was wrong.

    They go with CASCADE when what they read is dropped. Raises SourceInvalid, CandidatesInvalid, FallbackInvalid,
    ExclusionsInvalid where that is still missing.
    """
    gone = {f"view {name}" for name in CONFIGURED} & set(objects.missing(connection, recommender))
    wrong = {name.split()[1]: "was missing, perhaps dropped with a relation it reads" for name in sorted(gone)}
    if not wrong:
        stale: dict[str, str] = {}
        # reading the views reports a missing right, and waits for as long as the source may take
        with suppress(PermissionDenied, pg.InsufficientPrivilege, pg.LockNotAvailable, pg.QueryCanceled):
            stale = stale_views(connection, recommender)
        wrong = {name: f"read {what}, after a rename or a swap of tables" for name, what in stale.items()}
    if wrong:
        what = f"the {' and the '.join(f'view {name}' for name in wrong)} of {recommender.name!r}"
        with plain_errors(f"restoring {what}", connection):
            rendered = objects.render(recommender, *registry.selects_of(connection, recommender))
            views = {f"view {name}": rendered[f"view {name}"] for name in wrong}
            change = partial(objects.replace, connection, recommender, views, always=True)
            with_short_lock(connection, settings, f"Restoring {what}", [*map(recommender.relation, wrong)], change)
    return wrong


def disable_row_security(connection: Connection, settings: Settings, recommender: Registered) -> list[str]:
    """Disable row-level security on the recommender's own tables, as an event trigger enables it; return their names."""
    found = [row["relation"] for row in queries.rows(connection, "own_row_security", schema=recommender.name)]
    for relation in found:
        change = partial(connection.execute, f"ALTER TABLE {relation} DISABLE ROW LEVEL SECURITY")
        with_short_lock(connection, settings, f"Disabling row-level security of {relation}", relation, change)
    return found
