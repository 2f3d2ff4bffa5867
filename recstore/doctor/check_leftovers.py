"""Checks for what dead runs left and what is waiting. A later run cleans it all up, but an operator should know."""

from collections.abc import Iterator
from typing import Any

from recstore.doctor.findings import Finding, check, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.experiments import scratch as experiments
from recstore.publication import barriers
from recstore.publication import indexes as publication_indexes
from recstore.runs import LISTS_NAMESPACE, LOCK_NAMESPACE
from recstore.sql.generation import Generation, Side, sides


@check("recommender", well="no run was abandoned, and no dead session holds the lock")
def runs(subject: Subject) -> Iterator[Finding]:
    for row in subject.rows("doctor_dead_runs"):
        if row["abandoned"]:
            yield warning(
                f"run {row['run']} ({row['job']}, begun {row['started_at']:%Y-%m-%d %H:%M:%S %Z}) ended without finishing",
                "Its process or its connection was lost. The live generation is untouched. A worker's dispatch, or the next run,"
                " cleans up what it left; this does it now:",
                f"recstore prune {subject.name}",
            )
        else:
            yield warning(
                f"run {row['run']} ({row['job']}) is past its deadline, and still holds the recommender's lock",
                "Its process hangs or sleeps. A worker's dispatch ends its session a minute past the deadline; this does it now:",
                *([f"SELECT pg_terminate_backend({row['pid']});"] if row["pid"] else []),
            )
    for row in subject.rows("doctor_lock_without_run", trainings=LOCK_NAMESPACE, lists=LISTS_NAMESPACE):
        lock, others = ("lock of its lists", "No lists") if row["lists"] else ("lock", "No other run")
        yield warning(
            f"the session {row['pid']} of {row['application_name']} holds the recommender's {lock}, but no run is in progress",
            f"{others} can begin until that session ends. It belongs to a process that is gone or hangs, or to a pooler:",
            f"SELECT pg_terminate_backend({row['pid']});",
        )


@check("recommender", well="no generation is half built, or waits to go live or to be removed")
def generations(subject: Subject) -> Iterator[Finding]:
    rows = subject.rows("doctor_generations")
    for row in rows:
        if row["idle"]:
            yield from _waiting(subject, row)
    pruning = {row["generation"] for row in rows if row["state"] == "pruning"}
    for row in subject.rows("doctor_pending_detaches"):
        parent, partition = subject.quoted(subject.name, row["parent"]), subject.quoted(subject.name, row["partition"])
        yield warning(
            f"the detaching of {row['partition']} from {row['parent']} was interrupted",
            "The removal of its generation finishes it. Until then no other generation can be detached from there.",
            f"recstore prune {subject.name}"
            if int(row["partition"].rpartition("_")[2]) in pruning
            else f"ALTER TABLE {parent} DETACH PARTITION {partition} FINALIZE;",
        )
    for row in subject.rows("doctor_stray_tables"):
        yield note(
            f"the table {row['name']} belongs to a generation that no longer exists",
            "Nothing reads it, and nothing will remove it.",
            f"DROP TABLE {subject.quoted(subject.name, row['name'])};",
        )


def _waiting(subject: Subject, row: dict[str, Any]) -> Iterator[Finding]:
    """Report a generation that no run is working on, unless it is where it should be."""
    number = row["generation"]
    blockers = "; ".join(map(str, barriers.still_open(subject.connection, row["transactions"] or [])))
    if row["state"] == "ready" and row["newer"] and row["held"]:
        yield note(
            f"generation {number} is complete and not live: publications are held since a rollback",
            "No worker publishes it, or a newer one, until they are released:",
            f"recstore release {subject.name}",
        )
    elif row["state"] == "ready" and row["newer"]:
        waits = f"It waits for {blockers}." if blockers else "Nothing blocks it any more."
        yield warning(
            f"generation {number} is complete and not live",
            f"The previous one still serves. {waits} A worker's dispatch publishes it when it can; so does:",
            f"recstore publish {subject.name}",
        )
    elif row["state"] == "building":
        yield warning(
            f"generation {number} is half built, and no run is working on it",
            "A run died. No query sees that generation, but it takes up space:",
            f"recstore prune {subject.name}",
        )
    elif row["state"] == "pruning":
        waits = f"It waits for {blockers}." if blockers else "No session that this role can see blocks it any more."
        yield note(
            f"generation {number} waits to be removed",
            f"{waits} No query sees it, but it takes up space. A later run removes it; so does:",
            f"recstore prune {subject.name}",
        )


@check("recommender", quick=True)
def indexes(subject: Subject) -> Iterator[Finding]:
    recommender, live = subject.recommender, subject.live
    invalid = subject.rows("doctor_invalid_indexes")
    for row in invalid:
        yield warning(
            f"the index {row['name']} on {row['table']} is not valid",
            "A build of it was interrupted. Queries ignore it, but each change of the table updates it, and it takes up space.",
            f"DROP INDEX CONCURRENTLY {subject.quoted(subject.name, row['name'])};",
        )
    number = live["generation"]
    if number is None:
        yield ok("no live generation yet, so no missing index")
        return
    planned: tuple[tuple[Side, str, str], ...] = (
        ("items", "preference", "recommend_ef"),
        ("items", "embedding", "similar_ef"),
        ("users", "preference", "users_ef"),
    )
    hnsw = [(side, column) for side, column, ef in planned if live[ef] is not None]
    generation = Generation(recommender, number)
    tables = sides(seen=live["seen_published"], fold_in=live["folds_in"])
    wanted = publication_indexes.names(generation, tables, hnsw)
    missing = [row["name"] for row in subject.rows("lacking_indexes", quoted=recommender.schema, names=wanted)]
    if missing:
        lookups = publication_indexes.lookups(generation, tables, concurrently=True)
        made = [f"{lookups[one]};" for one in missing if one in lookups]
        yield error(
            f"indexes of the live generation {number} are missing: {', '.join(missing)}",
            "Answers are right, but slow: each reads a whole table. This builds the missing ones while readers go on:",
            *made,
            *([f"recstore reindex {subject.name}"] if len(made) < len(missing) else []),
        )
    elif not invalid:
        yield ok(f"the live generation {number} has all {len(wanted)} of its indexes")


@check("recommender", well="users who came after the training are answered as the fallback says")
def fold_in(subject: Subject) -> Iterator[Finding]:
    live = subject.live
    if live["generation"] is not None and not live["folds_in"] and "fold_in" in subject.recommender.definition.steps:
        yield note(
            f"the live generation {live['generation']} cannot fold in users who came after its training",
            "They get the items of the next step of the fallback. An older recstore published it, or its trainer has no fold-in.",
            f"recstore retrain {subject.name}",
        )


@check("registry", well="no evaluation left a scratch recommender")
def scratch(subject: Subject) -> Iterator[Finding]:
    for name in (row["name"] for row in subject.rows("scratch_schemas", **experiments.MARKED) if row["abandoned"]):
        yield note(
            f"the scratch recommender {name} was left by an evaluation that was killed",
            "The next `recstore evaluate --sql` removes it; so does:",
            *([f"recstore drop {name} --yes"] if name in subject.registered else []),
            f"DROP SCHEMA {subject.quoted(name + '_data')} CASCADE;",
        )


@check("recommender", well="no request waits that a worker should have begun")
def requests(subject: Subject) -> Iterator[Finding]:
    """Find requests that wait longer than a worker's own dispatch would leave them."""
    patience = max(subject.settings.resend, 3 * subject.settings.dispatch_interval)
    for row in subject.rows("doctor_waiting_requests", recommender=subject.name, seconds=patience):
        yield warning(
            f"request {row['request']} ({row['job']}) has waited {row['seconds']:.0f} s, and no run has begun it",
            "No worker takes it, or all of them are busy with other recommenders. Start one of the queue"
            f" `{'train' if row['job'] == 'retrain' else 'default'}`, and run `recstore health`; on one machine:",
            "recstore up",
        )
