"""Grant an application's role what it needs of a recommender, and name what others have to grant."""

from recstore.postgres.connection import Connection, plain_errors
from recstore.postgres.grants import check_role
from recstore.postgres.names import quoted
from recstore.source import inspection
from recstore.sql import objects, queries
from recstore.sql.objects import Registered


def grant_reader(
    connection: Connection, recommender: Registered, role: str, *, people: bool = False, forget: bool = False
) -> list[str]:
    """Let a role read the items and call the functions; with `people` also read user vectors and interactions, with `forget`
    erase users. Also the tables of lists that the definition names, those of people with `people`.

    Return the statements executed, and as comments those that others have to run, and what row-level security does. Raises
    InvalidInput for an unknown role, SeenPastPolicies.
    """
    check_role(connection, role)
    with plain_errors(f"granting to {role!r}", connection), connection.transaction():
        # so that a generation attached at the same time copies the new grants, or is in the list
        queries.run(connection, "lock_recommender", recommender_id=recommender.id)
        sides = ["items", "fold_in", "basis"] + ["users"] * people
        names = ["_generation", "_weighting", "item_vectors", "candidates"] + (
            ["user_vectors", "interactions", "_fallback", "exclusions"] if people else []
        )
        tables = connection.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p')"
            " AND c.relname ~ %s ORDER BY c.relname",
            [recommender.schema, rf"^_({'|'.join(sides)})(_old)?(_[0-9]+)?$"],
        ).fetchall()
        relations = [recommender.relation(name) for name in names + [row["relname"] for row in tables]]
        statements = [
            f"GRANT USAGE ON SCHEMA {recommender.schema} TO {quoted(role)};",
            f"GRANT SELECT ON {', '.join(relations)} TO {quoted(role)};",
            f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {recommender.schema} TO {quoted(role)};",
        ]
        people_too = people or _shows_people(connection, recommender, role)
        allowed = {objects.SEEN: people_too, objects.FORGET: forget or _may_forget(connection, recommender, role)}
        for function in (objects.of_user(recommender, name) for name, yes in allowed.items() if not yes):
            statements.append(f"REVOKE EXECUTE ON FUNCTION {function} FROM {quoted(role)};")
        lists, later = _lists_to_grant(connection, recommender, role, people)
        statements += lists
        for statement in statements:
            connection.execute(statement)
        if people_too and seen_published(connection, recommender):
            inspection.check_policies(connection, recommender, role)
        needed = _not_ours_to_grant(connection, recommender, role, people)
        remarks = _row_security_remarks(connection, recommender, role) if people else []
    return statements + later + needed + remarks


def _shows_people(connection: Connection, recommender: Registered, role: str) -> bool:
    view = recommender.relation("user_vectors")
    (row,) = connection.execute("SELECT has_table_privilege(%s, %s, 'SELECT') AS yes", [role, view])
    return bool(row["yes"])


def _may_forget(connection: Connection, recommender: Registered, role: str) -> bool:
    function = objects.of_user(recommender, objects.FORGET)
    (row,) = connection.execute("SELECT has_function_privilege(%s, %s, 'EXECUTE') AS yes", [role, function])
    return bool(row["yes"])


def _lists_to_grant(
    connection: Connection, recommender: Registered, role: str, people: bool
) -> tuple[list[str], list[str]]:
    """Return the GRANTs on the definition's tables of lists that this role may make, and as comments the others."""
    lists = recommender.definition.lists
    ours: list[str] = []
    others: list[str] = []
    for into in (lists.similar_into, lists.recommend_into if people else None):
        for row in queries.rows(connection, "grants_of_lists", table=into, role=role) if into else ():
            (ours if row["ours"] else others).append(
                row["grant"] if row["ours"] else f"-- {row['whose']}: {row['grant']}"
            )
    return list(dict.fromkeys(ours)), list(dict.fromkeys(others))


def _live_publishes(connection: Connection, recommender: Registered) -> bool:
    """Return True if the live generation publishes seen items."""
    live = connection.execute(f"SELECT g.seen_published FROM {recommender.schema}._generation g").fetchone()  # noqa: S608
    return bool(live and live["seen_published"])


def reads_source(connection: Connection, recommender: Registered) -> bool:
    """Return True if recommend() reads the source, now or after the next training: for seen items, or in a step."""
    definition = recommender.definition
    return definition.source.seen == "live" or definition.reads_source or not _live_publishes(connection, recommender)


def seen_published(connection: Connection, recommender: Registered) -> bool:
    """Return True if seen items are published, now or by the next training."""
    return recommender.definition.source.seen == "published" or _live_publishes(connection, recommender)


def _row_security_remarks(connection: Connection, recommender: Registered, role: str) -> list[str]:
    """Return as comments what row-level security of the source means for a role that calls recommend()."""
    relations = ", ".join(
        dict.fromkeys(
            row["object"] for row in inspection.row_security(connection, recommender.name, "interactions", role)
        )
    )
    if not relations:
        return []
    return [
        f"-- row-level security of {relations}: recommend() excludes only the seen items that {role} may read there"
    ]


def _not_ours_to_grant(connection: Connection, recommender: Registered, role: str, people: bool) -> list[str]:
    """Return what other owners have to grant, as SQL comments."""
    run = "-- still to be run by the owner"
    usage = connection.execute(
        "SELECT has_schema_privilege(%s, %s, 'USAGE') AS granted", [role, recommender.vector_schema]
    ).fetchone()
    needed = []
    if usage and not usage["granted"]:
        schema = quoted(recommender.vector_schema)
        needed.append(f"{run} of pgvector's schema: GRANT USAGE ON SCHEMA {schema} TO {quoted(role)};")
    read = {"candidates": "of what the candidates read, for every list of items"}
    if people:
        read["_fallback"] = "of what the fallback reads, for recommend()"
        read["exclusions"] = "of what the exclusions read, for recommend()"
    if people and reads_source(connection, recommender):
        read["interactions"] = "of the source, for recommend()"
    for view, whose in read.items():
        needed += [f"{run} {whose}: {grant}" for grant in objects.lacking_on(connection, recommender, view, role)]
    return list(dict.fromkeys(needed))
