"""Logical replication: publications that would carry a recommender's tables to subscribers which lack them."""

from collections.abc import Iterator

from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, ok, warning
from recstore.doctor.subject import Subject
from recstore.operations.recommenders import SUBSCRIBERS_LACK_THEM, publications_of_everything

OWN_SCHEMAS = ("recstore", "recstore_private")


@check("publications", "load")
def publications(subject: Subject) -> Iterator[Finding]:
    ours = [*subject.names, *OWN_SCHEMAS]
    quoted = subject.quoted
    all_tables = publications_of_everything(subject.connection)
    others = [row["name"] for row in subject.rows("application_schemas", without=ours)]
    for name in all_tables:
        schemas = ", ".join(map(quoted, others))
        options = subject.row("doctor_publication_options", name=name)["options"]
        what = f"TABLES IN SCHEMA {schemas} WITH ({options})"
        anew = (f"CREATE PUBLICATION {quoted(name)} FOR {what};",) if others else ()
        yield warning(
            f"the publication {name} is FOR ALL TABLES",
            f"With a recommender in this database {SUBSCRIBERS_LACK_THEM}. Publish the application's own schemas instead, as a"
            " superuser and in one transaction (then ALTER SUBSCRIPTION .. REFRESH PUBLICATION on the subscribers):",
            f"DROP PUBLICATION {quoted(name)};",
            *anew,
        )
    found = subject.rows("publications_of_schemas", schemas=ours)
    for row in found:
        relation = row["relation"]
        what = f"TABLE {quoted(row['schema'], relation)}" if relation else f"TABLES IN SCHEMA {quoted(row['schema'])}"
        yield warning(
            f"the publication {row['publication']} is for {what.lower()}, which is recstore's",
            f"As it is, {SUBSCRIBERS_LACK_THEM}.",
            f"ALTER PUBLICATION {quoted(row['publication'])} DROP {what};",
        )
    if not all_tables and not found:
        yield ok("no publication carries recstore's tables to subscribers")
