"""Checks of what a training asks of the server: memory and workers of an index build, locks, and replication."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import sql

from recstore.definition import DEFAULT_FACTORS
from recstore.doctor.findings import Finding, check, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.operations.recommenders import SUBSCRIBERS_LACK_THEM, publications_of_everything
from recstore.publication.indexes import Graph, graph_megabytes
from recstore.source.inspection import expected_rows
from recstore.source.plans import planned

LEAST = 64
"""Megabytes that a build requests at least; also the default shared memory of a container."""

LARGEST = 1984 * 1024
"""Megabytes above which the estimate of rows must be wrong, and nothing is suggested."""


def estimate(subject: Subject) -> tuple[int, str] | None:
    """Return (megabytes, rows and their origin) of the largest HNSW graph that the next training may build; None where it
    builds none. Based on the live generation's rows, or before the first one on the planner's estimate."""
    recommender = subject.recommender
    publication = recommender.definition.publication
    if publication.search == "exact":
        return None
    live = subject.live
    sides = ["items", "users"] if publication.index_users else ["items"]
    if live["generation"] is None:
        origin = "estimated by the planner"
        rows = {side: _distinct(subject, f"{side[:-1]}_id") for side in sides}
    else:
        origin = f"as many as generation {live['generation']} has"
        rows = {side: live[side] or 0 for side in sides}
    side = max(rows, key=lambda one: rows[one])
    megabytes = graph_megabytes(rows[side], recommender.dimensions, recommender.vector_type, Graph())
    return megabytes, f"{rows[side]:,} {side} of {recommender.dimensions} dimensions, {origin}"


def _distinct(subject: Subject, column: str) -> int:
    """Return the planner's estimate of the distinct ids in the source."""
    query = sql.SQL("SELECT DISTINCT i.{} FROM {} i").format(
        sql.Identifier(column), sql.Identifier(subject.name, "interactions")
    )
    try:
        with subject.connection.transaction():
            return int(planned(subject.connection, query)["Plan Rows"])
    except psycopg.DatabaseError:  # `source-readable` reports it
        if subject.connection.closed:
            raise
        return 0


def _warned(subject: Subject, words: str) -> bool:
    return any(words in str(sentence) for sentence in subject.live["warnings"])


@check("recommender", well="searches are always exact, so no HNSW index is built", quick=True)
def index_memory(subject: Subject) -> Iterator[Finding]:
    wanted = estimate(subject)
    if wanted is None:
        return
    megabytes, of_rows = wanted
    allowed = subject.settings.index_memory
    server = subject.server["maintenance_work_mem"]
    need = f"the graph of an HNSW index needs about {megabytes} MB ({of_rows})"
    outgrown = _warned(subject, "no longer fits")
    if LARGEST > megabytes > allowed or outgrown:
        enough = max(megabytes, 2 * allowed if outgrown and megabytes <= allowed else 0)
        yield warning(
            f"{need}, and RECSTORE_INDEX_MEMORY allows {allowed}"
            + (", too little for the last build" if outgrown else ""),
            "A build whose graph does not fit is about 2.6 times slower. recstore sets maintenance_work_mem itself, up to"
            f" that setting (the server's own, {server}, does not matter). If the server has the memory:",
            f"RECSTORE_INDEX_MEMORY={enough}",
        )
    else:
        yield ok(
            f"{need}; recstore sets maintenance_work_mem to that, up to RECSTORE_INDEX_MEMORY={allowed} MB (the server's own"
            f" is {server})"
        )


def training_bytes(pairs: int, users: int, items: int, factors: int) -> int:
    """Return the memory of a training by ALS in its process: docs/planning.md; measured in docs/performance.md."""
    return int(230e6 + 48 * pairs + 12 * factors * (users + items) + 100 * factors**2)


def machine_bytes() -> int:
    """Return the memory of this machine, or of this container if it is limited to less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


@check("recommender", quick=True)
def training_memory(subject: Subject) -> Iterator[Finding]:
    """Check the machine that this runs on, which should be that of the worker of the queue `train`."""
    hyperparameters, live = subject.recommender.definition.hyperparameters, subject.live
    if hyperparameters.trainer != "als":
        return
    if live["generation"] is None:
        pairs = expected_rows(subject.connection, subject.name)
        users, items = _distinct(subject, "user_id"), _distinct(subject, "item_id")
    else:
        pairs, users, items = (live[count] or 0 for count in ("pairs", "users", "items"))
    factors = max(1, min(hyperparameters.factors or DEFAULT_FACTORS, items - 1))
    needed, machine = training_bytes(pairs, users, items, factors) / 2**30, machine_bytes() / 2**30
    need = (
        f"a training needs about {needed:.2f} GB of memory ({pairs:,} pairs of {users:,} users and {items:,} items,"
        f" {factors} factors)"
    )
    if needed > machine:
        yield warning(
            f"{need}, and this machine has {machine:.1f} GB",
            "A process that needs more than there is gets killed; what is live stays live. Train where there is more memory, with"
            " fewer factors, or on fewer pairs: a query as source may leave out old ones.",
        )
    else:
        yield ok(f"{need}; this machine has {machine:.1f} GB")


@check("recommender", well="no parallel build, so no shared memory is requested")
def shared_memory(subject: Subject) -> Iterator[Finding]:
    wanted = estimate(subject)
    workers = subject.settings.index_workers
    if wanted is None or workers == 0:
        return
    megabytes = min(max(wanted[0], LEAST), subject.settings.index_memory)
    kind = subject.server["dynamic_shared_memory_type"]
    means = (
        f"A build with {workers} parallel workers keeps its graph there. Where it does not fit, recstore builds serially"
        " with half as much memory, which is only slower. The size is not visible from here: it is that of /dev/shm on"
        " the server, 64 MB in a container without --shm-size."
    )
    if _warned(subject, "trying again serially"):
        yield warning(
            f"the last build ran out of memory, or of shared memory ({megabytes} MB, dynamic_shared_memory_type {kind})",
            means + " Give the server more, or build serially from the start:",
            "RECSTORE_INDEX_WORKERS=0",
        )
    elif megabytes > LEAST and kind == "posix":
        yield note(f"an index build requests {megabytes} MB of shared memory", means)
    else:
        yield ok(f"an index build requests {megabytes} MB of shared memory ({kind})")


@check()
def parallel_workers(subject: Subject) -> Iterator[Finding]:
    server, wanted = subject.server, subject.settings.index_workers
    limits = {
        "max_parallel_workers": server["parallel_workers"],
        "max_worker_processes": server["worker_processes"],
    }
    name = min(limits, key=lambda one: limits[one])
    if wanted > limits[name]:
        yield note(
            f"RECSTORE_INDEX_WORKERS is {wanted} parallel workers, and the server's {name} is {limits[name]}",
            "Index builds get fewer and take longer. As a superuser (max_worker_processes needs a restart):",
            *(f"ALTER SYSTEM SET {one} = {wanted};" for one, most in limits.items() if most < wanted),
            "SELECT pg_reload_conf();",
        )
    else:
        yield ok(
            f"index builds get up to {wanted} parallel workers (RECSTORE_INDEX_WORKERS; the server's own"
            f" max_parallel_maintenance_workers, {server['maintenance_workers']}, does not matter)"
        )


@check()
def locks(subject: Subject) -> Iterator[Finding]:
    found = subject.server["locks_per_transaction"]
    if found < 64:
        yield note(
            f"max_locks_per_transaction is {found}, below PostgreSQL's default of 64",
            "A statement on the views locks every attached generation with its indexes, about 28 locks for three, and dropping"
            " a recommender locks all of it at once. As a superuser, with a restart:",
            "ALTER SYSTEM SET max_locks_per_transaction = 64;",
        )
    else:
        yield ok(f"max_locks_per_transaction is {found}")


@check(well="no publication sends recstore's tables to subscribers", quick=True)
def publications(subject: Subject) -> Iterator[Finding]:
    quoted = subject.quoted
    others = ", ".join(quoted(row["name"]) for row in subject.rows("application_schemas", without=subject.schemas))
    for name in publications_of_everything(subject.connection):
        options = subject.row("doctor_publication_options", name=name)["options"]
        yield warning(
            f"the publication {name} is FOR ALL TABLES",
            f"With a recommender in this database {SUBSCRIBERS_LACK_THEM}. Publish the application's own schemas instead, as a"
            " superuser and in one transaction (then ALTER SUBSCRIPTION .. REFRESH PUBLICATION on the subscribers):",
            f"DROP PUBLICATION {quoted(name)};",
            *([f"CREATE PUBLICATION {quoted(name)} FOR TABLES IN SCHEMA {others} WITH ({options});"] if others else []),
        )
    for row in subject.rows("publications_of_schemas", schemas=subject.schemas):
        relation = row["relation"]
        what = f"TABLE {quoted(row['schema'], relation)}" if relation else f"TABLES IN SCHEMA {quoted(row['schema'])}"
        yield warning(
            f"the publication {row['publication']} is for {what.lower()}, which is recstore's",
            f"As it is, {SUBSCRIBERS_LACK_THEM}.",
            f"ALTER PUBLICATION {quoted(row['publication'])} DROP {what};",
        )
