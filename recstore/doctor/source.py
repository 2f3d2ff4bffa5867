"""The source: whether it can be read, what row-level security hides, and how one user's rows are found."""

from collections.abc import Iterator
from typing import Any

from psycopg import errors as pg
from psycopg import sql

from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, error, ok, warning
from recstore.doctor.subject import Subject
from recstore.postgres.connection import one_line
from recstore.source import candidates, inspection
from recstore.source.plans import index_statement

PATIENCE = 2.0
"""Seconds that the lookup of one user may take here."""

SLOW = 50.0
"""Milliseconds of a lookup through an index from which on it is told as slow; every recommend() pays them."""


def relations(subject: Subject, name: str, view: str, role: str) -> list[dict[str, Any]]:
    """The relations that a view of the recommender reads, with what `role` (or the owner of a view between) may there."""
    return subject.rows("doctor_relations_read", schema=name, view=view, role=role)


def unreadable(subject: Subject, name: str, view: str, role: str) -> list[tuple[str, str, list[str]]]:
    """Relations that a view reads with the rights of `role`, which may not: (relation, owner, the grants that it lacks)."""
    found = []
    for row in relations(subject, name, view, role):
        if not row["direct"] or (row["usage"] and row["selectable"]):
            continue
        relation, to = subject.quoted(row["schema"], row["name"]), subject.quoted(role)
        grants = [] if row["usage"] else [f"GRANT USAGE ON SCHEMA {subject.quoted(row['schema'])} TO {to};"]
        grants += [] if row["selectable"] else [f"GRANT SELECT ON {relation} TO {to};"]
        found.append((relation, row["owner"], grants))
    return found


@check("source-readable", "source", "recommender")
def source_readable(subject: Subject, name: str) -> Iterator[Finding]:
    """Asked by reading a row of the view, which needs every right that a training needs."""
    if not subject.own:
        return
    view = sql.Identifier(name, "interactions")
    lacking = unreadable(subject, name, "interactions", subject.role)
    for relation, owner, grants in lacking:
        yield error(
            f"the role {subject.role} may not read {relation}",
            f"The next training fails; what is live stays live. Have the owner, {owner}, run:",
            *grants,
        )
    if lacking:
        return
    try:
        with subject.connection.transaction():
            found = subject.connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(view)).fetchone()
    except pg.UndefinedTable:
        return  # `objects` tells
    except pg.QueryCanceled:
        yield ok("the source takes longer than this check to give its first row")
        return
    except pg.Error as problem:
        if subject.connection.closed:
            raise
        yield error(
            f"reading the source fails: {one_line(problem)}",
            "The next training fails; what is live stays live. Mend the source, or give the recommender another one with"
            " `recstore alter`.",
        )
        return
    if found is None:
        yield error(
            "the source has no rows, or none that this role sees",
            "The next training fails; what is live stays live.",
        )
    else:
        yield ok(f"readable, about {inspection.expected_rows(subject.connection, name):,} rows")


@check("source-row-security", "source", "recommender", own=True)
def source_row_security(subject: Subject, name: str) -> Iterator[Finding]:
    quiet = True
    for row in relations(subject, name, "interactions", subject.role):
        if not row["row_security"] or row["sees_all"]:
            continue
        quiet = False
        relation, role = subject.quoted(row["schema"], row["name"]), subject.quoted(row["actor"])
        remedy = f"CREATE POLICY {subject.quoted('recstore_' + row['actor'])} ON {relation} FOR SELECT TO {role} USING (true);"
        yield warning(
            f"row-level security is on for {relation}, and {row['actor']} sees only what its policies show",
            "Trainings know nothing of the other rows, and do not notice. Where they should, have the owner,"
            f" {row['owner']}, add a policy for it, or a superuser run ALTER ROLE {role} BYPASSRLS;",
            remedy if not row["restricted"] else f"ALTER ROLE {role} BYPASSRLS;",
        )
    if quiet:
        yield ok("no row-level security hides rows from a training")


@check("source-lookup", "source", "recommender", own=True, transaction="its own")
def source_lookup(subject: Subject, name: str) -> Iterator[Finding]:
    source = subject.registered[name].definition.source
    lookup = inspection.check_lookup(subject.connection, name, PATIENCE)
    if lookup.problem:
        there = subject.rows("column_type", schema=name, view="interactions", column="user_id")
        if there and not unreadable(subject, name, "interactions", subject.role):  # else other checks tell
            yield warning(
                f"how one user's rows are found could not be seen: {lookup.problem}",
                "Every recommend() looks up what its user has seen, and what that costs is not known.",
            )
        return
    if lookup.milliseconds is None:
        yield ok("no rows to look up")
        return
    cost = f"{lookup.milliseconds:.1f} ms for a user of the first few"
    if source.seen == "published":
        yield ok(f"recommend() asks a table of each generation what a user has seen, not the source ({cost} there)")
        return
    publish = f"recstore alter {name} --seen published"
    if not lookup.indexed:
        statement = index_statement(subject.connection, name, "interactions", "user_id")
        means = "Every recommend() looks up what its user has seen, and reads far more than those rows."
        if statement:
            means += " An index mends that, made by the table's owner; so does a table that each generation publishes"
            means += f" ({publish}, from the next training on), but it does not know what was seen since."
        else:
            means += (
                " The source's query keeps the user's id from reaching an index (a window function, a materialized CTE,"
            )
            means += (
                " an expression that no index can have). A table that each generation publishes does without, from the"
            )
            means += " next training on, but it does not know what was seen since:"
        yield warning(f"finding one user's rows reaches no index: {cost}", means, statement or publish)
    elif lookup.milliseconds > SLOW:
        yield warning(
            f"finding one user's rows takes {cost}, though by an index",
            "Every recommend() pays that. Make the source's query simpler, or publish a table of seen items with each"
            " generation, which does not know what was seen since:",
            publish,
        )
    else:
        yield ok(f"one user's rows are found by an index: {cost}")


@check("candidates", "source", "recommender", own=True)
def eligible_items(subject: Subject, name: str) -> Iterator[Finding]:
    """Every function that lists items asks the view of each item that it considers."""
    recommender = subject.registered[name]
    if not recommender.definition.candidates.given:
        return
    lacking = unreadable(subject, name, "candidates", subject.role)
    for relation, owner, grants in lacking:
        yield error(
            f"the role {subject.role} may not read {relation}, which the candidates are made of",
            f"The next training can not calibrate and fails; what is live stays live. Have the owner, {owner}, run:",
            *grants,
        )
    if lacking:
        return
    try:
        indexed = candidates.looked_up_by_index(subject.connection, recommender)
    except pg.UndefinedTable:
        return  # `objects` tells
    if not indexed:
        statement = index_statement(subject.connection, name, "candidates", "item_id")
        yield warning(
            "whether one item is a candidate is found without an index",
            "Each list of items asks that of hundreds of them. Make an index on the column of item ids, or a simpler query.",
            *([statement] if statement else []),
        )
    found = candidates.eligible(subject.connection, recommender, recommender.relation("item_vectors"))
    if found.items and not found.eligible:
        yield warning(
            f"none of the live generation's {found.items:,} items is a candidate now",
            "Every list of items is empty. See whether the condition says what you mean: recstore show " + name,
        )
    else:
        yield ok(f"{found.eligible:,} of the live generation's {found.items:,} items are candidates")
