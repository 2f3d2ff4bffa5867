"""What recstore's own role may, and what is set for it. Privileges are asked one by one with has_*_privilege, which tells them
exactly, inherited ones too; only CREATE EXTENSION (see `server`) has to be tried."""

from collections.abc import Iterator

from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.postgres.connection import LIFTED


@check("create-schemas", "rights")
def create_schemas(subject: Subject) -> Iterator[Finding]:
    role, database = subject.quoted(subject.role), subject.quoted(subject.database)
    grant = f"GRANT CREATE ON DATABASE {database} TO {role};"
    if subject.row("doctor_rights")["create_schemas"]:
        yield ok("the role may create schemas, as each new recommender needs")
    elif not subject.private:
        yield error(
            f"the role {subject.role} may not create schemas in {subject.database}",
            "The first upgrade makes recstore's own schema, and each recommender has one. Have an administrator run:",
            grant,
        )
    else:
        yield (note if subject.revision is None else warning)(
            f"the role {subject.role} may not create schemas in {subject.database}",
            "What there is works on, but `recstore create` and `recstore evaluate --sql` will fail. Have an administrator run:",
            grant,
        )


@check("owner", "rights")
def owner(subject: Subject) -> Iterator[Finding]:
    if not subject.private:
        return
    found = subject.row("doctor_owner")
    if found["ours"]:
        yield ok(f"recstore's schemas belong to {found['owner']}, whose rights this role has")
    elif subject.revision is not None:
        yield error(
            f"recstore's schemas belong to {found['owner']}, and {subject.role} has not that role's rights",
            "Trainings make and drop tables there, which only the owner may. Connect as the owner, or:",
            f"GRANT {subject.quoted(found['owner'])} TO {subject.quoted(subject.role)};",
        )
    else:
        yield note(
            f"recstore works here as {found['owner']}, this is {subject.role}",
            "To look at everything, run it as that role.",
        )


@check("read-all-stats", "rights")
def read_all_stats(subject: Subject) -> Iterator[Finding]:
    if subject.row("doctor_rights")["read_all_stats"]:
        yield ok("the role sees who holds up a flip (pg_read_all_stats)")
    else:
        yield note(
            f"the role {subject.role} has not pg_read_all_stats",
            "Where somebody's transaction holds up a flip or a removal, recstore names its process, but not the role, the"
            " application and since when; and what it may not see it has to take for a blocker of a removal.",
            f"GRANT pg_read_all_stats TO {subject.quoted(subject.role)};",
        )


@check("role-settings", "rights")
def role_settings(subject: Subject) -> Iterator[Finding]:
    rows = subject.rows("doctor_settings_of_role", names=[*LIFTED, "lock_timeout", "temp_file_limit"])
    found = {row["name"]: row for row in rows if row["is_set"] or row["value"] == "on"}
    role, database = subject.quoted(subject.role), subject.quoted(subject.database)
    quiet = True
    limit = found.pop("temp_file_limit", None)
    if limit:
        quiet = False
        yield note(
            f"temp_file_limit is {int(limit['value']) / 1024:g} MB for this role",
            "Sorts and index builds that need more on disk are cancelled, and only a superuser may raise it:",
            f"ALTER ROLE {role} IN DATABASE {database} SET temp_file_limit = -1;",
        )
    limit = found.pop("lock_timeout", None)
    if limit:
        quiet = False
        yield note(
            f"lock_timeout is {int(limit['value']) / 1000:g} s for this role",
            "recstore sets its own for what readers could wait for; the rest of its statements would give up a wait after this:",
            f"ALTER ROLE {role} IN DATABASE {database} SET lock_timeout = 0;",
        )
    if quiet:
        lifted = f"; set, but lifted in recstore's sessions: {', '.join(sorted(found))}" if found else ""
        yield ok(f"no timeout or limit of the role cuts a long job short{lifted}")
