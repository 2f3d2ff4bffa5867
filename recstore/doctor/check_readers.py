"""Checks of an application's role: what it needs for similar_items(), and with people for recommend()."""

import shlex
from collections.abc import Iterator
from typing import Any

from recstore.doctor.check_source import unreadable
from recstore.doctor.findings import Finding, check, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.operations import readers
from recstore.source import inspection


@check("reader", quick=True)
def reader_objects(subject: Subject) -> Iterator[Finding]:
    people = subject.people
    missing = [row["object"] for row in subject.rows("doctor_missing_privileges", people=people)]
    functions = "recommend() and similar_items()" if people else "similar_items()"
    if not missing:
        yield ok(f"may read and call all of the recommender's objects that {functions} need")
        return
    yield error(
        f"may not use: {', '.join(missing[:6])}" + (f" and {len(missing) - 6} more" if len(missing) > 6 else ""),
        f"{functions} fail for this role with 'permission denied'.",
        f"recstore grant {subject.name} {shlex.quote(subject.reader)}" + " --people" * people,
    )


@check("reader", quick=True)
def reader_pgvector(subject: Subject) -> Iterator[Finding]:
    if subject.extension is None:
        return
    schema = subject.extension["schema"]
    if subject.row("doctor_may_use", schema=schema)["yes"]:
        yield ok(f"may use pgvector's schema {schema}")
    else:
        yield error(
            f"may not use pgvector's schema {schema}",
            "Every function that compares vectors fails for it: recstore's functions run with the caller's rights.",
            f"GRANT USAGE ON SCHEMA {subject.quoted(schema)} TO {subject.quoted(subject.reader)};",
        )


def _views(subject: Subject) -> dict[str, str]:
    """Return the views whose relations are read with the reader's rights -> what needs them."""
    views = {"candidates": "Every list of items"}
    if subject.people:
        views["_fallback"] = "recommend(), for a user without recommendations,"
        views["exclusions"] = "recommend()"
    if subject.people and _source_is_read(subject):
        views["interactions"] = "recommend(), which looks up its user's interactions,"
    return views


def _source_is_read(subject: Subject) -> bool:
    """Return True if recommend() reads the source, as far as this role can see."""
    registered = subject.registered.get(subject.name)
    return registered is None or readers.reads_source(subject.connection, registered)


@check("reader", well="may read what the views read in the application's tables", quick=True)
def reader_source(subject: Subject) -> Iterator[Finding]:
    for view, needs in _views(subject).items():
        yield from unreadable(subject, view, subject.reader, f"{needs} fails for this role.")


@check("reader", well="no row-level security hides rows from it")
def reader_row_security(subject: Subject) -> Iterator[Finding]:
    for view in _views(subject):
        for row in inspection.row_security(subject.connection, subject.name, view, subject.reader):
            yield _row_security(subject, view, row)


def _row_security(subject: Subject, view: str, row: dict[str, Any]) -> Finding:
    """Describe what row-level security of a relation hides from the reader of `view`."""
    relation, actor = row["object"], row["actor"]
    decides = f"row-level security of {relation} decides what {actor} sees there"
    effects = {
        "interactions": "may contain hidden items that the user has seen",
        "exclusions": "may contain excluded items",
    }
    effect = effects.get(view, "may be empty")
    if not row["policies"]:
        return warning(
            f"row-level security is on for {relation}, and no policy lets {actor} see a row",
            f"The view {view} is empty for it, so a list {effect}. Have the owner, {row['owner']}, add a policy of"
            " your own, or this one, which shows all:",
            f"CREATE POLICY {subject.quoted('recstore_' + actor)} ON {relation} FOR SELECT"
            f" TO {subject.quoted(actor)} USING (true);",
        )
    if view != "interactions":
        return note(decides, f"The view {view} does not show the rows that policies hide, so a list {effect}.")
    return note(
        decides,
        "recommend() excludes only the seen items that the policies show this role: all of them, if they show the rows of the"
        f" user who asks. Otherwise a list {effect}.",
    )


@check("recommender", well="published seen items show no role what row-level security hides from it", quick=True)
def published_seen(subject: Subject) -> Iterator[Finding]:
    if not readers.seen_published(subject.connection, subject.recommender):
        return
    name = subject.name
    for role, relations in inspection.seen_past_policies(subject.connection, subject.recommender).items():
        yield error(
            f"seen() shows {role} the seen items of every user, and row-level security of {relations} hides rows from it",
            "Read seen items from the source, or have the owner add a policy that shows the role all rows:",
            f"recstore alter {name} --seen live",
            f"recstore retrain {name}",
        )
