"""Checks of the server, pgvector, and recstore's own schema."""

from collections.abc import Iterator

import psycopg

from recstore.doctor.findings import Finding, check, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.errors import SchemaGone
from recstore.postgres.connection import MINIMUM_SERVER, one_line
from recstore.publication import indexes
from recstore.sql import objects as sql_objects
from recstore.sql import schema_revision

NEWEST_TESTED = 18

UPGRADE = "recstore db upgrade"


@check()
def connection(subject: Subject) -> Iterator[Finding]:
    """Report the connection; `examine` reports its failure under this name."""
    yield ok(f"reached the database {subject.database} as {subject.role}")


@check()
def server_version(subject: Subject) -> Iterator[Finding]:
    found = subject.server
    if found["major"] < MINIMUM_SERVER:
        yield error(
            f"the server is PostgreSQL {found['version']}",
            f"recstore needs {MINIMUM_SERVER} or newer and refuses to connect. Upgrade the server.",
        )
    elif found["major"] > NEWEST_TESTED:
        yield note(
            f"the server is PostgreSQL {found['version']}",
            f"recstore is tested up to {NEWEST_TESTED}; it should work.",
        )
    else:
        yield ok(f"PostgreSQL {found['version']}")


@check(well="a primary, which accepts writes")
def server_role(subject: Subject) -> Iterator[Finding]:
    if subject.server["standby"]:
        yield error(
            "this server is a standby, which accepts no writes",
            "Applications may read here, but trainings, requests and workers need the primary. Name it in"
            " RECSTORE_DATABASE_URL; with several hosts in the URL add target_session_attrs=read-write.",
        )


@check(quick=True)
def pgvector(subject: Subject) -> Iterator[Finding]:
    versions = subject.rows("doctor_vector_versions")
    newest = max((_version(row["version"]) for row in versions), default=())
    if subject.extension is None:
        if not newest:
            yield error(
                "pgvector is not on this server",
                "Nothing works without it. Install the package of pgvector for this version of PostgreSQL on the server"
                " (hosts offer it as the extension `vector`), then let an administrator create it here.",
                "CREATE EXTENSION vector;",
            )
        return  # `create-extension` reports the rest
    found, schema = subject.extension["version"], subject.extension["schema"]
    if _version(found) < schema_revision.MINIMUM_PGVECTOR:
        needed = ".".join(map(str, schema_revision.MINIMUM_PGVECTOR))
        first = "" if newest >= schema_revision.MINIMUM_PGVECTOR else " Install it on the server first."
        yield error(
            f"pgvector is {found}",
            f"recstore needs {needed} or newer, for scans that continue until k rows have passed the filters.{first}",
            "ALTER EXTENSION vector UPDATE;",
        )
    elif newest > _version(found):
        yield note(
            f"pgvector is {found}, and the server has {'.'.join(map(str, newest))}",
            "The library is already the newer one; its SQL objects here are not. Have the extension's owner update them.",
            "ALTER EXTENSION vector UPDATE;",
        )
    else:
        yield ok(f"pgvector {found} in the schema {schema}")
    if not subject.extension["usable"]:
        yield error(
            f"pgvector is in the schema {schema}, which the role {subject.role} may not use",
            "Neither migrations nor trainings run.",
            f"GRANT USAGE ON SCHEMA {subject.quoted(schema)} TO {subject.quoted(subject.role)};",
        )
        return
    # fails where an upgrade of the server has lost the library
    subject.connection.execute(f"SELECT '[1]'::{subject.quoted(schema)}.vector")


@check(well="no defect of this pgvector is worked around")
def pgvector_defects(subject: Subject) -> Iterator[Finding]:
    if subject.extension is None:
        return
    found = _version(subject.extension["version"])
    for first, what, why in (
        (
            indexes.SERIAL_BELOW,
            "HNSW indexes are built without parallel workers",
            "pgvector before 0.8.2 can overflow a buffer in a parallel build (CVE-2026-3172).",
        ),
        (
            indexes.UPDATABLE_FROM,
            "generations with HNSW indexes are not refreshed",
            "With pgvector before 0.8.4 a vacuum can corrupt an HNSW index whose rows were updated in place.",
        ),
    ):
        if found < first:
            yield note(
                what,
                f"{why} Install a newer one on the server, then have the extension's owner update it.",
                "ALTER EXTENSION vector UPDATE;",
            )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


@check(writes=True)
def create_extension(subject: Subject) -> Iterator[Finding]:
    """Try CREATE EXTENSION and roll it back: no privilege answers for trusted extensions and the rules of hosts."""
    if subject.extension is not None:
        yield ok("pgvector is installed here")
        return
    if not subject.rows("doctor_vector_versions"):
        return
    try:
        with subject.connection.transaction():
            subject.connection.execute("CREATE EXTENSION vector")
    except psycopg.Error as problem:
        if subject.connection.closed:
            raise
        yield error(
            f"pgvector is not installed in this database, and the role {subject.role} may not install it",
            f"CREATE EXTENSION was refused ({one_line(problem)}). Have an administrator run:",
            "CREATE EXTENSION vector;",
        )
    else:
        yield note(
            "pgvector is not installed in this database, and this role may install it",
            "CREATE EXTENSION succeeded and was rolled back. The first upgrade installs it.",
            UPGRADE,
        )


@check()
def search_path(subject: Subject) -> Iterator[Finding]:
    if subject.extension is None:
        return
    schema = subject.extension["schema"]
    subject.connection.execute("SET LOCAL search_path TO DEFAULT")  # where the application's sessions find names
    found = subject.row("doctor_search_path", schema=schema)
    if found["found"]:
        yield ok(f"pgvector's operators are on this role's search path ({found['search_path']})")
    else:
        yield note(
            f"pgvector's schema {schema} is not on this role's search path ({found['search_path']})",
            "recstore's own functions do not need it. Your own queries on the views must write"
            f" OPERATOR({subject.quoted(schema)}.<#>) instead of <#>, or set the path for the application's role. This"
            " statement sets it for the role of this connection:",
            f"ALTER ROLE {subject.quoted(subject.role)} IN DATABASE {subject.quoted(subject.database)}"
            f" SET search_path = {found['search_path'] or chr(39) * 2}, {subject.quoted(schema)};",
        )


@check(well="no other role may create functions in a schema of the search path", quick=True)
def writable_path(subject: Subject) -> Iterator[Finding]:
    subject.connection.execute("SET LOCAL search_path TO DEFAULT")
    for row in subject.rows("doctor_writable_path"):
        roles = ", ".join(subject.quoted(role) if role != "PUBLIC" else role for role in row["roles"])
        yield warning(
            f"{roles} may create objects in the schema {row['schema']}, which is on this role's search path",
            "recstore's own statements do not look there. But the functions and operators of a source or of candidates do, unless"
            " they name a schema, and run with recstore's rights. As the schema's owner:",
            f"REVOKE CREATE ON SCHEMA {subject.quoted(row['schema'])} FROM {roles};",
        )


@check(well="this role creates and finds nothing in recstore's schemas unless it names them", quick=True)
def own_path(subject: Subject) -> Iterator[Finding]:
    subject.connection.execute("SET LOCAL search_path TO DEFAULT")
    path = subject.row("doctor_path")["path"]
    ours = [name for name in path if name in subject.schemas]
    if ours and path[0] == ours[0]:
        rest = ", ".join(subject.quoted(name) for name in path if name not in ours)
        yield warning(
            f"recstore's schema {ours[0]} is the first on the search path of the role {subject.role}",
            "A role finds a schema of its own name first. Tables that it creates without a schema land"
            " there, and a source finds recstore's views before tables of the same name. Write schema.table, and:",
            f"ALTER ROLE {subject.quoted(subject.role)} IN DATABASE {subject.quoted(subject.database)}"
            f" SET search_path = {rest or chr(39) * 2};",
        )


@check()
def schema(subject: Subject) -> Iterator[Finding]:
    refuses = "Workers and commands of this version refuse to work here, and the checks of recommenders are left out."
    found, needed = subject.revision, schema_revision.head()
    if not subject.private:
        yield warning(
            "this database has no recstore schema yet",
            "The checks of recommenders, runs and requests are left out. If no other check reports a problem, run:",
            UPGRADE,
        )
    elif found is None:
        yield note(
            f"the role {subject.role} may not read recstore's own tables",
            "recstore works as another role, so the checks that need those tables are left out. All findings about"
            " 'this role' are about the role of this connection.",
        )
    elif found not in schema_revision.known():
        yield error(
            f"recstore's schema is at revision {found}, which this recstore does not know",
            f"{refuses} Install the recstore that upgraded it, or a newer one.",
        )
    elif found != needed:
        yield error(f"recstore's schema is at revision {found}; this version needs {needed}", refuses, UPGRADE)
    elif subject.problem:
        yield error(
            f"recstore's schema is at revision {found}, but its recommenders cannot be read: {subject.problem}",
            "Trainings fail for the same reason, and the checks of recommenders are left out.",
        )
    else:
        yield ok(f"recstore's schema is at revision {found}, as this version needs")


@check("recommender", quick=True)
def objects(subject: Subject) -> Iterator[Finding]:
    found, needed = subject.recommender.objects_version, sql_objects.OBJECTS_VERSION
    try:
        missing = sql_objects.missing(subject.connection, subject.recommender)
    except SchemaGone as gone:
        yield error(f"its schema was {gone.what}", "Queries of applications and trainings fail.", gone.run)
        return
    if found > needed:
        yield error(
            f"its functions and views are of version {found}; this recstore makes version {needed}",
            "Runs of this version refuse to work on it, and the live generation stays. Install the recstore that upgraded"
            " it, or a newer one.",
        )
    elif found < needed:
        yield error(
            f"its functions and views are of version {found}; this recstore makes version {needed}",
            "Runs of this version refuse to work on it, and the live generation stays.",
            UPGRADE,
        )
    elif missing:
        yield error(
            f"missing: the {', the '.join(missing)}",
            "Dropped, perhaps to migrate a table that it reads. Queries that use it fail.",
            UPGRADE,
        )
    elif outdated := sql_objects.stale(subject.connection, subject.recommender):
        yield error(
            f"made for pgvector's former schema, or by another version: the {', the '.join(outdated)}",
            "Queries that use it fail, until the next training or reindex replaces it. At once:",
            UPGRADE,
        )
    else:
        yield ok(f"all functions and views exist, at version {found}")


@check("recommender", well="row-level security hides none of recstore's own rows", quick=True)
def own_row_security(subject: Subject) -> Iterator[Finding]:
    for row in subject.rows("own_row_security", schema=subject.name):
        yield error(
            f"row-level security is on for {row['relation']}",
            "Readers see no row of it, so lists are empty. The next training disables it; check for an event trigger that"
            " enables it on every new table. At once:",
            f"ALTER TABLE {row['relation']} DISABLE ROW LEVEL SECURITY;",
        )
