"""Checks of the privileges and settings of recstore's own role.

Privileges are tested one by one with has_*_privilege, which includes inherited ones. Only CREATE EXTENSION has to be tried:
see `check_server`.
"""

from collections.abc import Iterator

from psycopg import sql

from recstore.doctor.findings import Finding, check, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.postgres.session import LIFTED


@check(well="the role may create schemas, as each new recommender needs")
def create_schemas(subject: Subject) -> Iterator[Finding]:
    if subject.row("doctor_rights")["create_schemas"]:
        return
    level, means = error, "The first upgrade creates recstore's own schema, and each recommender has one."
    if subject.private:
        level = note if subject.revision is None else warning
        means = "Existing recommenders keep working, but `recstore create` and `recstore evaluate --sql` will fail."
    yield level(
        f"the role {subject.role} may not create schemas in {subject.database}",
        f"{means} Have an administrator run:",
        f"GRANT CREATE ON DATABASE {subject.quoted(subject.database)} TO {subject.quoted(subject.role)};",
    )


ALL_OBJECTS = (
    "SELECT format('SCHEMA %I', n.nspname) FROM pg_namespace n WHERE n.nspname IN ({schemas})"
    " UNION ALL SELECT format('%s %I.%I', CASE c.relkind WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, n.nspname, c.relname)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ({schemas}) AND c.relkind IN"
    " ('r', 'p', 'v', 'c')"
    " UNION ALL SELECT format('ROUTINE %s', p.oid::regprocedure) FROM pg_proc p JOIN pg_namespace n"
    " ON n.oid = p.pronamespace WHERE n.nspname IN ({schemas})"
)
"""SELECT of everything in schemas that has an owner, as ALTER .. OWNER TO names it. The sequences belong to columns."""


def _owned_by(subject: Subject) -> str:
    """Return the statement that gives recstore's schemas, with everything in them, to this role."""
    schemas = ", ".join(sql.Literal(name).as_string(None) for name in subject.schemas)
    alter = sql.Literal(f"ALTER %s OWNER TO {subject.quoted(subject.role).replace('%', '%%')}").as_string(None)
    return (
        f"DO $do$DECLARE what text; BEGIN FOR what IN {ALL_OBJECTS.replace('{schemas}', schemas)} LOOP"
        f" EXECUTE format({alter}, what); END LOOP; END$do$;"
    )


@check(quick=True)
def owner(subject: Subject) -> Iterator[Finding]:
    if not subject.private:
        return
    found = subject.row("doctor_owner", schemas=subject.schemas)
    if found["ours"] and (foreign := subject.rows("doctor_foreign_objects", schemas=subject.schemas)):
        yield error(
            f"{foreign[0]['object']} belongs to {foreign[0]['owner']}, whose rights {subject.role} does not have"
            + (f", and so do {len(foreign) - 1} more objects of recstore's" if foreign[1:] else ""),
            "Trainings drop and alter what is there, which only the owner may. Objects belong to the role that made or restored"
            " them. As a superuser:",
            _owned_by(subject),
        )
    elif subject.superuser:
        yield note(
            f"recstore works here as {found['owner']}; this connection is {subject.role}'s, a superuser",
            "The checks of sources and candidates are left out: functions that these call would get its rights. For all checks,"
            " run doctor as that role.",
        )
    elif found["ours"]:
        yield ok(f"recstore's schemas belong to {found['owner']}, whose rights this role has")
    elif subject.revision is not None:
        yield error(
            f"recstore's schemas belong to {found['owner']}, and {subject.role} does not have that role's rights",
            "Trainings create and drop tables there, which only the owner may. Connect as the owner, or run:",
            f"GRANT {subject.quoted(found['owner'])} TO {subject.quoted(subject.role)};",
        )
    elif not found["admitted"]:
        yield error(
            f"recstore's schemas belong to {found['owner']}, and {subject.role} may use none of them",
            f"Every command of {subject.role} is refused. pg_restore --no-owner gives all of a dump to the role that restores"
            " it. If recstore works as another role, name that one in the URL. If it should work as this one, a superuser can"
            " give it everything of recstore's:",
            _owned_by(subject),
        )
    else:
        yield note(
            f"recstore works here as {found['owner']}; this connection is {subject.role}'s",
            "For all checks, run doctor as that role.",
        )


@check("registry", well="no other role was granted to watch recommenders or ask for jobs")
def watchers(subject: Subject) -> Iterator[Finding]:
    if roles := ", ".join(row["role"] for row in subject.rows("doctor_watchers")):
        yield ok(
            f"roles that were granted to watch recommenders or ask for jobs: {roles} (to revoke: recstore db revoke ROLE)"
        )


@check(well="the role sees which sessions block a flip (pg_read_all_stats)")
def read_all_stats(subject: Subject) -> Iterator[Finding]:
    if not subject.row("doctor_rights")["read_all_stats"]:
        yield note(
            f"the role {subject.role} does not have pg_read_all_stats",
            "When a transaction blocks a flip or a removal, recstore reports its process, but neither role and application"
            " nor the time since when. A session that it may not see counts as a blocker of a removal.",
            f"GRANT pg_read_all_stats TO {subject.quoted(subject.role)};",
        )


@check()
def role_settings(subject: Subject) -> Iterator[Finding]:
    rows = subject.rows("doctor_settings_of_role", names=[*LIFTED, "temp_file_limit"])
    found = {row["name"]: row["value"] for row in rows if row["is_set"] or row["value"] == "on"}
    alter = f"ALTER ROLE {subject.quoted(subject.role)} IN DATABASE {subject.quoted(subject.database)} SET"
    temp_files = found.pop("temp_file_limit", None)
    if temp_files:
        yield note(
            f"temp_file_limit is {int(temp_files) / 1024:g} MB for this role",
            "Sorts and index builds that need more on disk are cancelled. Only a superuser may raise it:",
            f"{alter} temp_file_limit = -1;",
        )
    else:
        lifted = f"; set, but lifted in recstore's sessions: {', '.join(sorted(found))}" if found else ""
        yield ok(f"no timeout or limit of the role interrupts a long job{lifted}")
