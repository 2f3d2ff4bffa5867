"""What dead runs left, and what waits: all of it goes with a later run, but somebody should know."""

from collections.abc import Iterator

from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.experiments import scratch
from recstore.publication import barriers, indexes
from recstore.runs import LISTS_NAMESPACE, LOCK_NAMESPACE


@check("runs", "leftovers", "recommender", own=True)
def runs(subject: Subject, name: str) -> Iterator[Finding]:
    keys = {"recommender_id": subject.registered[name].id}
    quiet = True
    for row in subject.rows("doctor_dead_runs", **keys):
        quiet = False
        if row["abandoned"]:
            yield warning(
                f"run {row['run']} ({row['job']}, begun {row['started_at']:%Y-%m-%d %H:%M:%S %Z}) ended without finishing",
                "Its process or its connection was lost. The live generation is untouched. A worker's dispatch, or the next run,"
                " cleans up what it left; this does it now:",
                f"recstore prune {name}",
            )
        else:
            yield warning(
                f"run {row['run']} ({row['job']}) is past its deadline, and still holds the recommender's lock",
                "Its process hangs or sleeps. A worker's dispatch ends its session a minute past that; this does so now:",
                *([f"SELECT pg_terminate_backend({row['pid']});"] if row["pid"] else []),
            )
    for row in subject.rows("doctor_lock_without_run", **keys, trainings=LOCK_NAMESPACE, lists=LISTS_NAMESPACE):
        quiet = False
        lock, others = ("lock of its lists", "No lists") if row["lists"] else ("lock", "No other run")
        yield warning(
            f"the session {row['pid']} of {row['application_name']} holds the recommender's {lock}, and no run is at work",
            f"{others} can begin until that session ends. It belongs to a process that is gone or hangs, or to a pooler:",
            f"SELECT pg_terminate_backend({row['pid']});",
        )
    if quiet:
        yield ok("no run was abandoned, and no dead session holds the lock")


@check("generations", "leftovers", "recommender", own=True)
def generations(subject: Subject, name: str) -> Iterator[Finding]:
    recommender = subject.registered[name]
    quiet, pruning = True, set()
    for row in subject.rows("doctor_generations", recommender_id=recommender.id):
        number = row["generation"]
        if row["state"] == "pruning":
            pruning.add(number)
        if not row["idle"]:
            continue
        if row["state"] == "ready" and row["newer"] and row["passed_over"]:
            quiet = False
            yield note(
                f"generation {number} is complete and not live: it was passed over by a rollback",
                "No worker publishes it, and the next training makes a newer one. Where it should go live all the same:",
                f"recstore publish {name}",
            )
        elif row["state"] == "ready" and row["newer"]:
            quiet = False
            blockers = "; ".join(map(str, barriers.still_open(subject.connection, row["transactions"] or [])))
            who = f" It waits for {blockers}." if blockers else " Nobody holds it up any more."
            yield warning(
                f"generation {number} is complete and not live",
                f"The one before serves on.{who} A worker's dispatch publishes it when it can; so does:",
                f"recstore publish {name}",
            )
        elif row["state"] == "building":
            quiet = False
            yield warning(
                f"generation {number} is half built, and no run is at work on it",
                "A run died. Nobody can see that generation, but it takes room:",
                f"recstore prune {name}",
            )
        elif row["state"] == "pruning":
            quiet = False
            blockers = "; ".join(map(str, barriers.still_open(subject.connection, row["transactions"] or [])))
            who = f"It waits for {blockers}." if blockers else "Nobody that this role can see holds it up any more."
            yield note(
                f"generation {number} waits to be removed",
                f"{who} Nobody can see it, but it takes room. It goes with a later run, or by:",
                f"recstore prune {name}",
            )
    for row in subject.rows("doctor_pending_detaches", schema=name, recommender_id=recommender.id):
        quiet = False
        yield warning(
            f"the detaching of {row['partition']} from {row['parent']} was cut short",
            "It is finished with the removal of its generation. Until then no other generation can be detached from there.",
            f"recstore prune {name}"
            if int(row["partition"].rpartition("_")[2]) in pruning
            else f"ALTER TABLE {subject.quoted(name, row['parent'])}"
            f" DETACH PARTITION {subject.quoted(name, row['partition'])} FINALIZE;",
        )
    for row in subject.rows("doctor_stray_tables", schema=name, recommender_id=recommender.id):
        quiet = False
        yield note(
            f"the table {row['name']} is of a generation that is not there any more",
            "Nothing reads it, and nothing will remove it.",
            f"DROP TABLE {subject.quoted(name, row['name'])};",
        )
    if quiet:
        yield ok("no generation is half built, waits to be removed or to go live")


@check("indexes", "leftovers", "recommender", own=True)
def generation_indexes(subject: Subject, name: str) -> Iterator[Finding]:
    recommender = subject.registered[name]
    keys = {"recommender_id": recommender.id}
    invalid = subject.rows("doctor_invalid_indexes", schema=name, **keys)
    for row in invalid:
        yield warning(
            f"the index {row['name']} on {row['table']} is not valid",
            "A build of it was cut short. Queries ignore it, but each change of the table keeps it up, and it takes room.",
            f"DROP INDEX CONCURRENTLY {subject.quoted(name, row['name'])};",
        )
    live = subject.row("doctor_live", **keys)
    number = live["generation"]
    if number is None:
        yield ok("no live generation yet, so none that could lack an index")
        return
    planned = (
        ("items", "preference", "recommend_ef"),
        ("items", "embedding", "similar_ef"),
        ("users", "preference", "users_ef"),
    )
    hnsw = [(side, column) for side, column, ef in planned if live[ef] is not None]
    wanted = indexes.names(number, seen=live["seen_published"], hnsw=hnsw)
    lacking = subject.rows("lacking_indexes", quoted=recommender.schema, names=wanted)
    lookups = indexes.lookups(recommender, number, seen=live["seen_published"], concurrently=True)
    if lacking:
        names = [row["name"] for row in lacking]
        made = [f"{lookups[one]};" for one in names if one in lookups]
        yield error(
            f"the live generation {number} lacks {', '.join(names)}",
            "Answers are right, but slow: each reads a whole table. This builds what is lacking, while readers go on:",
            *made,
            *([f"recstore reindex {name}"] if len(made) < len(names) else []),
        )
    elif not invalid:
        yield ok(f"the live generation {number} has all {len(wanted)} of its indexes")


@check("scratch", "leftovers", own=True)
def scratch_recommenders(subject: Subject) -> Iterator[Finding]:
    left = []
    for row in subject.rows("scratch_schemas", mark=scratch.MARK):
        held = subject.row("doctor_scratch_held", namespace=scratch.LOCK_NAMESPACE, number=int(row["name"][-8:], 16))
        if not held["yes"]:
            left.append(row["name"])
    for name in left:
        yield note(
            f"the scratch recommender {name} was left by an evaluation that was killed",
            "The next `recstore evaluate --sql` removes it; so does:",
            *([f"recstore drop {name} --yes"] if name in subject.registered else []),
            f"DROP SCHEMA {subject.quoted(name + '_data')} CASCADE;",
        )
    if not left:
        yield ok("no evaluation left a scratch recommender")


@check("requests", "leftovers", "recommender", own=True)
def requests(subject: Subject, name: str) -> Iterator[Finding]:
    """Longer than a worker's own dispatch would leave them."""
    patience = max(subject.settings.resend, 3 * subject.settings.dispatch_interval)
    rows = subject.rows("doctor_waiting_requests", recommender=name, seconds=patience)
    for row in rows:
        yield warning(
            f"request {row['request']} ({row['job']}) waits for {row['seconds']:.0f} s, and no run has begun it",
            "No worker takes it, or all of them are busy with other recommenders. Start one of the queue"
            f" `{'train' if row['job'] == 'retrain' else 'default'}`, and see `recstore health`; on one machine:",
            "recstore up",
        )
    if not rows:
        yield ok("no request waits that a worker should have begun")
