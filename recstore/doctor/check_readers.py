"""Checks of an application's role: what it needs for similar_items(), and with people for recommend()."""

import shlex
from collections.abc import Iterator

from recstore.doctor.check_source import relations, unreadable
from recstore.doctor.findings import Finding, check, error, note, ok, warning
from recstore.doctor.subject import Subject


@check("reader")
def reader_objects(subject: Subject, name: str, reader: str) -> Iterator[Finding]:
    people = subject.readers[name][reader]
    missing = [
        row["object"] for row in subject.rows("doctor_missing_privileges", schema=name, role=reader, people=people)
    ]
    functions = "recommend() and similar_items()" if people else "similar_items()"
    if not missing:
        yield ok(f"may read and call all of the recommender's objects that {functions} need")
        return
    yield error(
        f"may not use: {', '.join(missing[:6])}" + (f" and {len(missing) - 6} more" if len(missing) > 6 else ""),
        f"{functions} fail for this role with 'permission denied'.",
        f"recstore grant {name} {shlex.quote(reader)}" + " --people" * people,
    )


@check("reader")
def reader_pgvector(subject: Subject, name: str, reader: str) -> Iterator[Finding]:
    del name
    if subject.extension is None:
        return
    schema = subject.extension["schema"]
    if subject.row("doctor_may_use", role=reader, schema=schema)["yes"]:
        yield ok(f"may use pgvector's schema {schema}")
    else:
        yield error(
            f"may not use pgvector's schema {schema}",
            "Every function that compares vectors fails for it: recstore's functions run with the caller's rights.",
            f"GRANT USAGE ON SCHEMA {subject.quoted(schema)} TO {subject.quoted(reader)};",
        )


def _views(subject: Subject, name: str, reader: str) -> dict[str, str]:
    """Return the views whose relations are read with the reader's rights -> what needs them."""
    registered = subject.registered.get(name)
    live = registered is None or registered.definition.source.seen == "live"
    views = {"candidates": "Every list of items"}
    if live and subject.readers[name][reader]:
        views["interactions"] = "recommend(), which looks up what its user has seen,"
    return views


@check("reader", well="may read what the views read in the application's tables")
def reader_source(subject: Subject, name: str, reader: str) -> Iterator[Finding]:
    for view, needs in _views(subject, name, reader).items():
        what, fails = f", which the view {view} reads", f"{needs} fails for this role."
        yield from unreadable(subject, name, view, reader, "", what, fails)


@check("reader", well="no row-level security hides rows from it")
def reader_row_security(subject: Subject, name: str, reader: str) -> Iterator[Finding]:
    for view in _views(subject, name, reader):
        for row in relations(subject, name, view, reader):
            if not row["row_security"] or row["sees_all"]:
                continue
            relation, actor = subject.quoted(row["schema"], row["name"]), row["actor"]
            effect = "may contain hidden items that the user has seen" if view == "interactions" else "may be empty"
            if row["policies"]:
                yield note(
                    f"row-level security of {relation} decides what {actor} sees there",
                    f"The view {view} does not show the rows that policies hide, so a list {effect}.",
                )
            else:
                yield warning(
                    f"row-level security is on for {relation}, and no policy lets {actor} see a row",
                    f"The view {view} is empty for it, so a list {effect}. Have the owner, {row['owner']}, add a policy of"
                    " your own, or this one, which shows all:",
                    f"CREATE POLICY {subject.quoted('recstore_' + actor)} ON {relation} FOR SELECT"
                    f" TO {subject.quoted(actor)} USING (true);",
                )
