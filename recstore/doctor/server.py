"""The server, pgvector, and recstore's own schema."""

from collections.abc import Iterator

import psycopg

from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.errors import RecstoreError
from recstore.postgres.connection import MINIMUM_SERVER, one_line
from recstore.sql import objects, schema_revision

NEWEST_TESTED = 18

UPGRADE = "recstore db upgrade"


@check("connection", "server")
def connection(subject: Subject) -> Iterator[Finding]:
    """Where there is none, `examine` says so under this name."""
    yield ok(f"reached the database {subject.database} as {subject.role}")


@check("server-version", "server")
def server_version(subject: Subject) -> Iterator[Finding]:
    found = subject.row("doctor_server")
    told = f"PostgreSQL {found['version']}"
    if found["major"] < MINIMUM_SERVER:
        yield error(
            f"the server is {told}",
            f"recstore needs {MINIMUM_SERVER} or newer and refuses to connect. Upgrade the server.",
        )
    elif found["major"] > NEWEST_TESTED:
        yield note(f"the server is {told}", f"recstore is tested up to {NEWEST_TESTED}; it should work.")
    else:
        yield ok(told)


@check("server-role", "server")
def server_role(subject: Subject) -> Iterator[Finding]:
    if subject.row("doctor_server")["standby"]:
        yield error(
            "this server is a standby, which takes no writes",
            "Applications may read here, but trainings, requests and workers need the primary. Name it in"
            " RECSTORE_DATABASE_URL; with several hosts in the URL add target_session_attrs=read-write.",
        )
    else:
        yield ok("a primary, which takes writes")


@check("pgvector", "server")
def pgvector(subject: Subject) -> Iterator[Finding]:
    versions = subject.rows("doctor_vector_versions")
    newest = max((row["version"] for row in versions), key=_version, default=None)
    if subject.extension is None:
        if newest is None:
            yield error(
                "pgvector is not on this server",
                "Nothing works without it. Install the package of pgvector for this version of PostgreSQL on the server"
                " (hosts have it as the extension `vector`), then let an administrator create it here.",
                "CREATE EXTENSION vector;",
            )
        return  # `create-extension` tries the rest
    found, schema = subject.extension["version"], subject.extension["schema"]
    needed = ".".join(map(str, schema_revision.MINIMUM_PGVECTOR))
    if _version(found) < schema_revision.MINIMUM_PGVECTOR:
        yield error(
            f"pgvector is {found}",
            f"recstore needs {needed} or newer, for scans that go on until k rows have passed the filters."
            + (
                ""
                if newest and _version(newest) >= schema_revision.MINIMUM_PGVECTOR
                else " Install it on the server first."
            ),
            "ALTER EXTENSION vector UPDATE;",
        )
    elif newest and _version(newest) > _version(found):
        yield note(
            f"pgvector is {found}, and the server has {newest}",
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
    subject.connection.execute(
        f"SELECT '[1]'::{subject.quoted(schema)}.vector"
    )  # the library, lost in an upgrade perhaps


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


@check("create-extension", "server", transaction="rolled back")
def create_extension(subject: Subject) -> Iterator[Finding]:
    """The only check that writes: whether a role may create an extension depends on more than privileges (it may be marked
    as trusted, a host may allow it otherwise), so it is tried, and rolled back."""
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
            f"It was tried, and refused ({one_line(problem)}). Have an administrator run:",
            "CREATE EXTENSION vector;",
        )
    else:
        yield note(
            "pgvector is not installed in this database, and this role may install it",
            "It was tried, and rolled back. The first upgrade does it.",
            UPGRADE,
        )


@check("search-path", "server")
def search_path(subject: Subject) -> Iterator[Finding]:
    if subject.extension is None:
        return
    schema = subject.extension["schema"]
    found = subject.row("doctor_search_path", schema=schema)
    if found["found"]:
        yield ok(f"pgvector's operators are on this role's search path ({found['search_path']})")
    else:
        yield note(
            f"pgvector's schema {schema} is not on this role's search path ({found['search_path']})",
            "recstore's own functions do without. A query of one's own on the views has to write"
            f" OPERATOR({subject.quoted(schema)}.<#>) in place of <#>, or set the path for the application's role, which the"
            " statement here does for this one.",
            f"ALTER ROLE {subject.quoted(subject.role)} IN DATABASE {subject.quoted(subject.database)}"
            f" SET search_path = {found['search_path'] or chr(39) * 2}, {subject.quoted(schema)};",
        )


@check("schema", "server")
def own_schema(subject: Subject) -> Iterator[Finding]:
    if not subject.private:
        yield warning(
            "this database has no recstore schema yet",
            "The checks of recommenders, runs and requests are left out. When nothing else stands in the way:",
            UPGRADE,
        )
        return
    if subject.revision is None:
        yield note(
            f"the role {subject.role} may not read recstore's own tables",
            "It is not the role that recstore works as, so what only those tables tell is left out. Whatever is said here of"
            " 'this role' is of that one.",
        )
        return
    try:
        schema_revision.require_current(subject.connection)
    except RecstoreError as problem:
        remedies = (UPGRADE,) if "Run: recstore db upgrade" in problem.message else ()
        yield error(
            problem.message.partition(" Run:")[0].rstrip("."),
            "Workers and commands of this version refuse to work here, and the checks of recommenders are left out.",
            *remedies,
        )
        return
    if subject.problem:
        yield error(
            f"recstore's schema is at revision {subject.revision}, but its recommenders can not be read: {subject.problem}",
            "Trainings fail for the same reason, and the checks of recommenders are left out.",
        )
    else:
        yield ok(f"recstore's schema is at revision {subject.revision}, which this version needs")


@check("objects", "server", "recommender", own=True)
def recommender_objects(subject: Subject, name: str) -> Iterator[Finding]:
    recommender = subject.registered[name]
    found, needed = recommender.objects_version, objects.OBJECTS_VERSION
    if found > needed:
        yield error(
            f"its functions and views are of version {found}, this recstore makes version {needed}",
            "Runs of this recstore refuse to work on it. Install the recstore that upgraded it, or a newer one.",
        )
        return
    if found < needed:
        yield error(
            f"its functions and views are of version {found}, this recstore makes version {needed}",
            "Runs refuse to work on it, and what is live stays as it is.",
            UPGRADE,
        )
    lacking = objects.missing(subject.connection, recommender)
    if lacking and found >= needed:
        yield error(
            f"it lacks the {', the '.join(lacking)}",
            "Somebody dropped it, perhaps to migrate a table that it reads. Queries that use it fail.",
            UPGRADE,
        )
    if found == needed and not lacking:
        yield ok(f"all functions and views are there, of version {found}")
