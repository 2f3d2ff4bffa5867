"""Whether the tables of lists that a definition names can be written, before the workers try at night."""

from collections.abc import Iterator

from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, error, ok
from recstore.doctor.subject import Subject
from recstore.errors import RecstoreError


@check("list-tables", "source", "recommender", own=True)
def list_tables(subject: Subject, name: str) -> Iterator[Finding]:
    """The same look that the workers take before they make lists."""
    recommender = subject.registered[name]
    defined = recommender.definition.lists
    if not (defined.recommend_into or defined.similar_into):
        return
    from recstore.lists import shapes, tables  # with all that computes, which no other check needs

    for option, into, shape in (
        ("--recommend-into", defined.recommend_into, shapes.recommended(recommender)),
        ("--similar-into", defined.similar_into, shapes.similar(recommender)),
    ):
        if into is None:
            continue
        try:
            tables.look_at(subject.connection, name, into, shape)
        except RecstoreError as refused:
            statement = str(getattr(refused, "remedy", "")).rpartition("run: ")[2]
            remedy = statement if statement.endswith(";") else f"recstore alter {name} {option} none"
            reason = getattr(refused, "reason", "")
            means = (
                f"{reason[0].upper()}{reason[1:]}. The workers' next lists fail; what is there stays."
                if reason
                else refused.message
            )
            yield error(f"{shape.command} can not write its lists to {into}", means, remedy)
        else:
            yield ok(f"{shape.command} can write its lists to {into}")
