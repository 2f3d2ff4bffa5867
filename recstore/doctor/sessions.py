"""Sessions: how a dead connection is noticed, and whose transactions would hold a flip or a removal."""

from collections.abc import Iterator
from typing import Any

from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict

from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.postgres.connection import conninfo
from recstore.publication.barriers import Blocker

SLOWEST = 300
"""Seconds after which a connection whose other end is gone should have been noticed."""


def noticed_after(url: str) -> int | None:
    """Seconds after which recstore's connections to `url` notice that the other end is gone; None: never."""
    given = {key: str(value) for key, value in conninfo_to_dict(conninfo(url, "recstore")).items()}
    if given["keepalives"] == "0":
        return None
    system = {"idle": 7200, "interval": 75, "count": 9}  # what 0 stands for: Linux's own
    idle, interval, count = (int(given[f"keepalives_{what}"]) or system[what] for what in system)
    return idle + interval * count


@check("keepalives", "sessions")
def keepalives(subject: Subject) -> Iterator[Finding]:
    seconds = noticed_after(subject.url)
    if subject.connection.info.host.startswith(("/", "@")):
        yield ok("a Unix socket, which both ends see closing")
    elif seconds is None:
        yield warning(
            "the URL turns TCP keepalives off",
            "A connection that a firewall or a NAT has forgotten is noticed only when something is sent, so a run may wait for"
            " ever. Leave keepalives=0 out of the URL: recstore's own are 30 s, then three times 10 s.",
        )
    elif seconds > SLOWEST:
        yield warning(
            f"the URL's TCP keepalives notice a dead connection after {seconds} s",
            "A run waits that long before it fails and is tried again. Leave keepalives_* out of the URL: recstore's own are"
            " 30 s, then three times 10 s.",
        )
    else:
        yield ok(f"a dead connection is noticed after {seconds} s")
    try:
        with subject.connection.transaction():
            subject.connection.execute("SET LOCAL client_connection_check_interval = '2s'")
    except pg.InvalidParameterValue:
        yield note(
            "the server's platform has no client_connection_check_interval",
            "The server notices a killed worker only when its statement ends, and keeps its lock until then; the next run waits.",
        )


def _who(row: dict[str, Any]) -> str:
    return str(Blocker(row["pid"], row["role"], row["application_name"], row["since"]))


def _end(row: dict[str, Any]) -> str:
    return f"SELECT pg_terminate_backend({row['pid']});"


@check("long-transactions", "sessions")
def long_transactions(subject: Subject) -> Iterator[Finding]:
    """Of the whole database: each holds up the removal of old generations, and vacuum."""
    patience = subject.settings.flip_wait
    rows = subject.rows("doctor_long_transactions", seconds=patience)
    for row in rows:
        yield note(
            f"{_who(row)} ({row['state'] or 'of unknown state'})",
            "A transaction this old keeps generations that are no longer needed from being removed; one that has used a"
            " recommender's views may also hold the next flip (see `flip-holders`). See what it is before you end it:",
            _end(row),
        )
    hidden = subject.row("doctor_hidden_transactions")["sessions"]
    if hidden:
        yield note(
            f"{hidden} more sessions are in a transaction, and this role may not see since when",
            "With pg_read_all_stats they could be told.",
            f"GRANT pg_read_all_stats TO {subject.quoted(subject.role)};",
        )
    if not rows and not hidden:
        yield ok(f"no transaction is open for longer than RECSTORE_FLIP_WAIT, {patience:g} s")


@check("flip-holders", "sessions", "recommender", own=True)
def flip_holders(subject: Subject, name: str) -> Iterator[Finding]:
    """Of one recommender: whoever used its views before the next generation was attached, which could not go live now."""
    patience = subject.settings.flip_wait
    recommender = subject.registered[name]
    quiet = True
    for row in subject.rows("doctor_flip_holders", recommender_id=recommender.id, parents=recommender.parents()):
        if row["application_name"].startswith("recstore") or (row["seconds"] is not None and row["seconds"] < patience):
            continue
        quiet = False
        if row["seconds"] is None and row["pid"]:
            yield note(
                f"{_who(row)} has used its views in a transaction that is still open",
                "If it stays open, the next generation waits for it, `ready` but not live. Since when it is open this role may"
                " not see.",
                f"GRANT pg_read_all_stats TO {subject.quoted(subject.role)};",
            )
        elif row["pid"]:
            yield warning(
                f"{_who(row)} has used its views, and that transaction is still open",
                "A generation published now would wait for it, `ready` but not live, since a flip would empty the views under"
                " it. recstore ends nobody's session; see what it is before you do:",
                _end(row),
            )
    if quiet:
        yield ok("no long-open transaction would hold a flip")


@check("prepared-transactions", "sessions")
def prepared_transactions(subject: Subject) -> Iterator[Finding]:
    rows = [row for row in subject.rows("doctor_prepared_transactions") if row["seconds"] >= subject.settings.flip_wait]
    for row in rows:
        yield warning(
            f"the prepared transaction {row['gid']!r} of {row['role']} waits since {row['since']:%Y-%m-%d %H:%M:%S %Z}",
            "Nobody's session shows it, and it holds flips and removals until it is committed or rolled back. See what its"
            " transaction manager knows of it before you do:",
            f"ROLLBACK PREPARED {_literal(row['gid'])};",
        )
    if not rows:
        yield ok("no prepared transaction is left waiting")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@check("standbys", "sessions")
def standbys(subject: Subject) -> Iterator[Finding]:
    rows = subject.rows("doctor_slots")
    for row in rows:
        yield (warning if row["holds_rows"] else note)(
            f"nobody reads the {row['type']} replication slot {row['name']}",
            ("It keeps old generations from being removed, and" if row["holds_rows"] else "It")
            + " makes the server keep WAL, which each training adds to, until the disk is full. If its standby is gone:",
            f"SELECT pg_drop_replication_slot({_literal(row['name'])});",
        )
    found = subject.row("doctor_standbys")["standbys"]
    if found:
        yield note(
            f"{found} standbys or subscribers follow this server",
            "On a standby the functions are exact as here; a query on the views is so in transactions shorter than"
            f" RECSTORE_RETENTION ({subject.settings.retention:g} s), or with hot_standby_feedback.",
        )
    if not rows and not found:
        yield ok("no standby, and no replication slot that nobody reads")


@check("track-activities", "sessions")
def track_activities(subject: Subject) -> Iterator[Finding]:
    if subject.row("doctor_server")["track_activities"]:
        yield ok("track_activities is on")
    else:
        yield warning(
            "track_activities is off",
            "Nobody can see since when a transaction is open, so what holds up a flip is told without it. As a superuser:",
            f"ALTER DATABASE {subject.quoted(subject.database)} SET track_activities = on;",
        )
