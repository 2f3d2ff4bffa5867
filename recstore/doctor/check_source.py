"""Checks of a recommender's source, candidates and tables of lists: readable, complete, and found by an index."""

from collections.abc import Callable, Generator, Iterator

from psycopg import errors as pg
from psycopg import sql

from recstore.doctor.findings import Finding, check, error, ok, warning
from recstore.doctor.subject import Subject
from recstore.errors import (
    CandidatesInvalid,
    ExclusionsInvalid,
    FallbackInvalid,
    PermissionDenied,
    RecstoreError,
    SourceInvalid,
)
from recstore.operations import repair
from recstore.postgres.connection import one_line
from recstore.source import candidates as eligibility
from recstore.source import inspection
from recstore.source.plans import index_statement

PATIENCE = 2.0
"""Seconds that the lookup of one user may take here."""

SLOW = 50.0
"""Milliseconds from which an indexed lookup is reported as slow; every recommend() pays them."""

FAILS = "The next training fails; the live generation stays."

NOT_SINCE = "but it does not know the interactions since"


def unreadable(subject: Subject, view: str, role: str, fails: str) -> Iterator[Finding]:
    """Report what a view reads and calls with the rights of `role`, which may not."""
    for row in subject.rows("relations_read", view=view, role=role):
        if row["direct"] and row["grants"]:
            yield error(
                f"the role {role} may not use {row['object']}, which the view {view} needs",
                f"{fails} Have the owner, {row['owner']}, run:",
                *row["grants"],
            )


@check("recommender")
def source_readable(subject: Subject) -> Iterator[Finding]:
    """Read a row of the view, which needs every right that a training needs."""
    missing = [*unreadable(subject, "interactions", subject.role, FAILS)]
    yield from missing
    if missing:
        return
    view = sql.Identifier(subject.name, "interactions")
    try:
        with subject.connection.transaction():
            found = subject.connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(view)).fetchone()
    except pg.UndefinedTable:
        return  # `objects` reports it
    except pg.QueryCanceled:
        yield ok("the source takes longer than this check to return its first row")
        return
    except pg.Error as problem:
        if subject.connection.closed:
            raise
        yield error(
            f"reading the source fails: {one_line(problem)}",
            f"{FAILS} Fix the source, or give the recommender another one with `recstore alter`.",
        )
        return
    if found is None:
        yield error("the source has no rows, or none that this role sees", FAILS)
    else:
        yield ok(f"readable, about {inspection.expected_rows(subject.connection, subject.name):,} rows")


@check("recommender", well="no row-level security hides rows from a training", quick=True)
def source_row_security(subject: Subject) -> Iterator[Finding]:
    for row in inspection.row_security(subject.connection, subject.name, "interactions", subject.role):
        relation, role = row["object"], subject.quoted(row["actor"])
        policy = subject.quoted("recstore_" + row["actor"])
        bypass = f"ALTER ROLE {role} BYPASSRLS;"
        yield warning(
            f"row-level security is on for {relation}, and {row['actor']} sees only what its policies show",
            "Trainings do not see the other rows and cannot notice. If they should, have the owner,"
            f" {row['owner']}, add a policy for it, or a superuser run {bypass}",
            bypass if row["restricted"] else f"CREATE POLICY {policy} ON {relation} FOR SELECT TO {role} USING (true);",
        )


@check("recommender", well="the views read what the definition names", quick=True, writes=True)
def stale_views(subject: Subject) -> Iterator[Finding]:
    try:
        with subject.connection.transaction():
            stale = repair.stale_views(subject.connection, subject.recommender)
    except (PermissionDenied, pg.InsufficientPrivilege, pg.UndefinedTable):
        return  # `source-readable`, `candidates` and `objects` report it
    except (SourceInvalid, CandidatesInvalid, FallbackInvalid, ExclusionsInvalid) as refused:
        yield error(
            refused.message.rstrip("."),
            f"The views read what was there before. {FAILS}",
            f"recstore show {subject.name}",
        )
        return
    for view, what in stale.items():
        yield error(
            f"the view {view} reads {what}",
            "A view follows a relation through a rename or a swap, so trainings and recommend() continue with the old one. The"
            " next training recreates the view. At once:",
            "recstore db upgrade",
        )


@check("recommender", well="no collation takes different ids for equal")
def collations(subject: Subject) -> Iterator[Finding]:
    for row in subject.rows("doctor_collations"):
        yield error(
            f"{row['column']} of the view {row['view']} has the collation {row['collation']}, which takes different texts for"
            " equal",
            "recstore compares ids byte by byte: one user or item counts as several. Give one form of each id in a query, for"
            f' example lower({row["column"]}) COLLATE "C" AS {row["column"]}, with `recstore alter`.',
        )


@check("recommender")
def source_lookup(subject: Subject) -> Iterator[Finding]:
    source = subject.recommender.definition.source
    lookup = inspection.check_lookup(subject.connection, subject.name, PATIENCE)
    if lookup.problem:
        exists = subject.rows("column_type", view="interactions", column="user_id")
        if exists and not any(unreadable(subject, "interactions", subject.role, "")):  # reported elsewhere
            yield warning(
                f"the lookup of one user's rows could not be examined: {lookup.problem}",
                "Every recommend() looks up what its user has seen, at an unknown cost.",
            )
        return
    if lookup.milliseconds is None:
        yield ok("no rows to look up")
        return
    cost = f"{lookup.milliseconds:.1f} ms for a user of the first few"
    publish = f"recstore alter {subject.name} --seen published"
    if source.seen == "published":
        yield ok(f"recommend() reads seen items from a table of each generation, not from the source ({cost} there)")
    elif not lookup.indexed:
        statement = index_statement(subject.connection, subject.name, "interactions", "user_id")
        means = "Every recommend() looks up what its user has seen, and reads far more than those rows."
        if statement:
            means += (
                " The table's owner can create an index. Or each generation publishes a table"
                f" ({publish}, from the next training on), {NOT_SINCE}."
            )
        else:
            means += (
                " The source's query keeps the user's id from reaching an index (a window function, a materialized CTE,"
                " an expression that no index can have). A table that each generation publishes needs none, from the next"
                f" training on, {NOT_SINCE}:"
            )
        yield warning(f"finding one user's rows uses no index: {cost}", means, statement or publish)
    elif lookup.milliseconds > SLOW:
        yield warning(
            f"finding one user's rows takes {cost}, although by an index",
            "Every recommend() pays that. Simplify the source's query, or publish a table of seen items with each"
            f" generation, {NOT_SINCE}:",
            publish,
        )
    else:
        yield ok(f"one user's rows are found by an index: {cost}")


@check("recommender")
def candidates(subject: Subject) -> Iterator[Finding]:
    """Check the view that every function that lists items queries for each item it considers."""
    recommender = subject.recommender
    if not recommender.definition.candidates.given:
        return
    readable = yield from _looked_up(
        subject,
        "candidates",
        "item_id",
        "The next training cannot calibrate and fails; the live generation stays.",
        lambda *fix: warning(
            "finding whether one item is a candidate uses no index",
            "Each list of items looks up hundreds of items. Create an index on the column of item ids, or simplify the query.",
            *fix,
        ),
    )
    if not readable:
        return
    found = eligibility.eligible(subject.connection, recommender, recommender.relation("item_vectors"), PATIENCE)
    if found.items and not found.eligible:
        yield warning(
            f"none of the live generation's {found.items:,} items is a candidate now",
            f"Every list of items is empty. Check that the condition says what you mean: recstore show {subject.name}",
        )
    else:
        yield ok(f"{found.eligible:,} of the live generation's {found.items:,} items are candidates")


@check("recommender", well="an index finds one user's exclusions")
def exclusions(subject: Subject) -> Iterator[Finding]:
    """Check the view that every recommend() reads."""
    if subject.recommender.definition.exclusions.query is None:
        return
    yield from _looked_up(
        subject,
        "exclusions",
        "user_id",
        "The jobs that list recommendations for all users fail.",
        lambda *fix: warning(
            "finding one user's exclusions uses no index",
            "Every recommend() looks them up. Create an index on the column of user ids, or simplify the query.",
            *fix,
        ),
    )


def _looked_up(
    subject: Subject, view: str, column: str, fails: str, unindexed: Callable[..., Finding]
) -> Generator[Finding, None, bool]:
    """Check that this role may read a view, else `fails`, and that an index finds one id in it, else `unindexed` with the
    statement that creates one. Return whether the view can be read."""
    missing = [*unreadable(subject, view, subject.role, fails)]
    yield from missing
    if missing:
        return False
    try:
        indexed = eligibility.looked_up_by_index(subject.connection, subject.recommender, view, column)
    except pg.UndefinedTable:
        return False  # `objects` reports it
    if not indexed:
        statement = index_statement(subject.connection, subject.name, view, column)
        yield unindexed(*([statement] if statement else []))
    return True


@check("recommender")
def list_tables(subject: Subject) -> Iterator[Finding]:
    """Make the same test that the workers make before they write lists."""
    recommender = subject.recommender
    defined = recommender.definition.lists
    if not (defined.recommend_into or defined.similar_into):
        return
    from recstore.lists import shapes, tables  # imports what computes, which no other check needs

    for option, into, shape in (
        ("--recommend-into", defined.recommend_into, shapes.recommended(recommender)),
        ("--similar-into", defined.similar_into, shapes.similar(recommender)),
    ):
        if into is None:
            continue
        try:
            tables.look_at(subject.connection, subject.name, into, shape)
        except RecstoreError as refused:
            remedy = getattr(refused, "statement", "") or f"recstore alter {subject.name} {option} none"
            reason = getattr(refused, "reason", "")
            means = f"{reason[:1].upper()}{reason[1:]}. The workers' next lists fail; existing lists stay."
            yield error(
                f"{shape.command} cannot write its lists to {into}", means if reason else refused.message, remedy
            )
        else:
            yield ok(f"{shape.command} can write its lists to {into}")
