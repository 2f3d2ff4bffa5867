"""Checks of sessions: how a dead connection is noticed, and which transactions would block a flip or a removal."""

from collections.abc import Iterator
from typing import Any

from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict

from recstore.doctor.findings import Finding, check, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.postgres.connection import conninfo
from recstore.postgres.pooler import kind_of, observe
from recstore.publication.barriers import Blocker

SLOWEST = 300
"""Seconds after which a connection whose other end is gone should have been noticed."""

KEEPALIVES = "recstore's own are 30 s, then three times 10 s."


@check(well="a direct connection: no pooler in between")
def pooler(subject: Subject) -> Iterator[Finding]:
    kind = kind_of(observe(conninfo(subject.url, "recstore:doctor")))
    if kind == "transaction":
        yield error(
            "the URL leads through a pooler that assigns a server session to each transaction (PgBouncer's pool_mode"
            " transaction, or similar)",
            "Applications may use it: nothing that they need of recstore outlives a transaction. Workers and commands may not:"
            " their locks and settings belong to a session, and would be lost, or left to others. Give them the server's"
            " own address and port, or a pool in session mode.",
            "RECSTORE_DATABASE_URL=postgresql://ROLE:PASSWORD@THE-SERVER-ITSELF:5432/" + subject.database,
        )
    elif kind == "session":
        yield note(
            "the URL leads through a pooler that assigns a server session to each connection",
            "That works. But the server notices a killed worker, and releases its lock, only when the pooler notices; a"
            " direct connection is better.",
        )


def noticed_after(url: str) -> int | None:
    """Return the seconds after which recstore's connections to `url` notice that the other end is gone; None: never."""
    options = {key: str(value) for key, value in conninfo_to_dict(conninfo(url, "recstore")).items()}
    if options["keepalives"] == "0":
        return None
    system = {"idle": 7200, "interval": 75, "count": 9}  # Linux's own, which 0 stands for
    idle, interval, count = (int(options[f"keepalives_{option}"]) or system[option] for option in system)
    return idle + interval * count


@check()
def keepalives(subject: Subject) -> Iterator[Finding]:
    seconds = noticed_after(subject.url)
    if subject.connection.info.host.startswith(("/", "@")):
        yield ok("a Unix socket, whose end both sides notice")
    elif seconds is None:
        yield warning(
            "the URL turns TCP keepalives off",
            "A connection that a firewall or a NAT has dropped is noticed only when something is sent, so a run may wait"
            f" forever. Remove keepalives=0 from the URL: {KEEPALIVES}",
        )
    elif seconds > SLOWEST:
        yield warning(
            f"the URL's TCP keepalives notice a dead connection after {seconds} s",
            f"A run waits that long before it fails and is retried. Remove keepalives_* from the URL: {KEEPALIVES}",
        )
    else:
        yield ok(f"a dead connection is noticed after {seconds} s")
    try:
        with subject.connection.transaction():
            subject.connection.execute("SET LOCAL client_connection_check_interval = '2s'")
    except pg.InvalidParameterValue:
        yield note(
            "the server's platform does not support client_connection_check_interval",
            "The server notices a killed worker, and releases its lock, only when its statement ends; the next run waits.",
        )


def _who(row: dict[str, Any]) -> str:
    return str(Blocker(row["pid"], row["role"], row["application_name"], row["since"]))


def _terminate(row: dict[str, Any]) -> str:
    return f"SELECT pg_terminate_backend({row['pid']});"


def _grant_stats(subject: Subject) -> str:
    return f"GRANT pg_read_all_stats TO {subject.quoted(subject.role)};"


@check()
def long_transactions(subject: Subject) -> Iterator[Finding]:
    """Find those in the whole database: each blocks the removal of old generations, and vacuum."""
    patience = subject.settings.flip_wait
    rows = subject.rows("doctor_long_transactions", seconds=patience)
    for row in rows:
        yield note(
            f"{_who(row)} ({row['state'] or 'of unknown state'})",
            "A transaction this old blocks the removal of generations that are no longer needed. If it has used a"
            " recommender's views it may also block the next flip (see `flip-holders`). Check what it is before you end it:",
            _terminate(row),
        )
    hidden = subject.row("doctor_hidden_transactions")["sessions"]
    if hidden:
        yield note(
            f"{hidden} more sessions are in a transaction, and this role may not see since when",
            "With pg_read_all_stats doctor can report them.",
            _grant_stats(subject),
        )
    if not rows and not hidden:
        yield ok(f"no transaction is open for longer than RECSTORE_FLIP_WAIT, {patience:g} s")


@check("recommender", well="no long-open transaction would block a flip")
def flip_holders(subject: Subject) -> Iterator[Finding]:
    """Find the sessions that used the views before the next generation was attached, which could not go live now."""
    patience = subject.settings.flip_wait
    for row in subject.rows("doctor_flip_holders", parents=subject.recommender.parents()):
        if row["application_name"].startswith("recstore") or (row["seconds"] is not None and row["seconds"] < patience):
            continue
        if row["seconds"] is None and row["pid"]:
            yield note(
                f"{_who(row)} has used its views in a transaction that is still open",
                "If it stays open, the next generation waits for it, `ready` but not live. This role may not see since when"
                " it is open.",
                _grant_stats(subject),
            )
        elif row["pid"]:
            yield warning(
                f"{_who(row)} has used its views, and that transaction is still open",
                "A generation published now would wait for it, `ready` but not live, because a flip would empty the views for"
                " it. recstore never ends other sessions; check what it is before you do:",
                _terminate(row),
            )


@check(well="no prepared transaction is waiting", quick=True)
def prepared_transactions(subject: Subject) -> Iterator[Finding]:
    for row in subject.rows("doctor_prepared_transactions"):
        if row["seconds"] >= subject.settings.flip_wait:
            yield warning(
                f"the prepared transaction {row['gid']!r} of {row['role']} waits since {row['since']:%Y-%m-%d %H:%M:%S %Z}",
                "It belongs to no session, and blocks flips and removals until it is committed or rolled back. Ask its"
                " transaction manager before you do:",
                f"ROLLBACK PREPARED {_literal(row['gid'])};",
            )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@check(well="no standby, and no unused replication slot", quick=True)
def standbys(subject: Subject) -> Iterator[Finding]:
    for row in subject.rows("doctor_slots"):
        yield (warning if row["holds_rows"] else note)(
            f"the {row['type']} replication slot {row['name']} is not in use",
            ("It blocks the removal of old generations, and" if row["holds_rows"] else "It")
            + " makes the server keep WAL, which each training adds to, until the disk is full. If its standby is gone:",
            f"SELECT pg_drop_replication_slot({_literal(row['name'])});",
        )
    found = subject.row("doctor_standbys")["standbys"]
    if found:
        yield note(
            f"{found} standbys or subscribers follow this server",
            "On a standby the functions are exact as here. A query on the views is exact in transactions shorter than"
            f" RECSTORE_RETENTION ({subject.settings.retention:g} s), or with hot_standby_feedback.",
        )


@check(well="track_activities is on")
def track_activities(subject: Subject) -> Iterator[Finding]:
    if not subject.server["track_activities"]:
        yield warning(
            "track_activities is off",
            "No role can see since when a transaction is open, so reports of what blocks a flip omit it. As a superuser:",
            f"ALTER DATABASE {subject.quoted(subject.database)} SET track_activities = on;",
        )
