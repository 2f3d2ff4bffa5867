"""What the server gives to building a generation's indexes, against what the next build is estimated to need."""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.publication.indexes import Graph, graph_megabytes
from recstore.source.plans import planned

LEAST = 64
"""Megabytes that a build asks for at least; also what a container has of shared memory unless told otherwise."""

LARGEST = 1984 * 1024
"""Megabytes beyond which no estimate of rows is believed, and nothing is suggested."""


def estimate(subject: Subject, name: str) -> tuple[int, str] | None:
    """(megabytes, of what) of the largest HNSW graph that the next training may build; None where it builds none. From the
    live generation's rows, or before the first one from the planner's estimate."""
    recommender = subject.registered[name]
    publication = recommender.definition.publication
    if publication.search == "exact":
        return None
    live = subject.row("doctor_live", recommender_id=recommender.id)
    sides = {"items": live["items"], "users": live["users"] if publication.index_users else 0}
    whence = f"as many as generation {live['generation']} has"
    if live["generation"] is None:
        whence = "estimated by the planner"
        sides = {
            side: _distinct(subject, name, f"{side[:-1]}_id")
            for side in sides
            if side == "items" or publication.index_users
        }
    side = max(sides, key=lambda one: sides[one] or 0)
    rows = sides[side] or 0
    megabytes = graph_megabytes(rows, recommender.dimensions, recommender.vector_type, Graph())
    return megabytes, f"{rows:,} {side} of {recommender.dimensions} dimensions, {whence}"


def _distinct(subject: Subject, name: str, column: str) -> int:
    """Distinct ids in the source, as the planner expects."""
    query = sql.SQL("SELECT DISTINCT i.{} FROM {} i").format(
        sql.Identifier(column), sql.Identifier(name, "interactions")
    )
    try:
        with subject.connection.transaction():
            return int(planned(subject.connection, query)["Plan Rows"])
    except psycopg.DatabaseError:  # `source-readable` tells
        if subject.connection.closed:
            raise
        return 0


def _ran_out(live: dict[str, Any], words: str) -> bool:
    return any(words in str(sentence) for sentence in live["warnings"])


@check("index-memory", "load", "recommender", own=True)
def index_memory(subject: Subject, name: str) -> Iterator[Finding]:
    wanted = estimate(subject, name)
    if wanted is None:
        yield ok("searches are always exact, so no HNSW index is built")
        return
    megabytes, of_what = wanted
    given = subject.settings.index_memory
    server = subject.row("doctor_server")["maintenance_work_mem"]
    told = f"the graph of an HNSW index needs about {megabytes} MB ({of_what})"
    outgrown = _ran_out(subject.row("doctor_live", recommender_id=subject.registered[name].id), "no longer fits")
    if LARGEST > megabytes > given or outgrown:
        wide = max(megabytes, 2 * given if outgrown and megabytes <= given else 0)
        yield warning(
            f"{told}, and RECSTORE_INDEX_MEMORY allows {given}"
            + (", which the last build outgrew" if outgrown else ""),
            "A build whose graph does not fit is about 2.6 times slower. recstore sets maintenance_work_mem itself, to what"
            f" it needs up to that setting (the server's own, {server}, does not matter). If the server has the memory:",
            f"RECSTORE_INDEX_MEMORY={wide}",
        )
    else:
        yield ok(
            f"{told}; recstore sets maintenance_work_mem to that, up to RECSTORE_INDEX_MEMORY={given} MB (the server's own is"
            f" {server})"
        )


@check("shared-memory", "load", "recommender", own=True)
def shared_memory(subject: Subject, name: str) -> Iterator[Finding]:
    wanted = estimate(subject, name)
    server = subject.row("doctor_server")
    workers = subject.settings.index_workers
    if wanted is None or workers == 0:
        yield ok("no parallel build, so no shared memory is asked for")
        return
    megabytes = min(max(wanted[0], LEAST), subject.settings.index_memory)
    kind = server["dynamic_shared_memory_type"]
    live = subject.row("doctor_live", recommender_id=subject.registered[name].id)
    means = (
        f"A build with {workers} parallel workers keeps its graph there. Where it does not fit, recstore builds serially"
        " with half as much, which is slower and harms nothing. How much there is can not be seen from here: /dev/shm on"
        " the server, 64 MB in a container unless --shm-size says otherwise."
    )
    if _ran_out(live, "trying again serially"):
        yield warning(
            f"the last build ran out of memory, or of shared memory ({megabytes} MB, dynamic_shared_memory_type {kind})",
            means + " Give the server more, or build serially from the start:",
            "RECSTORE_INDEX_WORKERS=0",
        )
    elif megabytes > LEAST and kind == "posix":
        yield note(f"an index build asks for {megabytes} MB of shared memory at once", means)
    else:
        yield ok(f"an index build asks for {megabytes} MB of shared memory ({kind})")


@check("parallel-workers", "load")
def parallel_workers(subject: Subject) -> Iterator[Finding]:
    server = subject.row("doctor_server")
    wanted = subject.settings.index_workers
    limits = {
        "max_parallel_workers": server["parallel_workers"],
        "max_worker_processes": server["worker_processes"],
    }
    name = min(limits, key=lambda one: limits[one])
    if wanted > limits[name]:
        yield note(
            f"RECSTORE_INDEX_WORKERS asks for {wanted} parallel workers, and {name} of the server is {limits[name]}",
            "Index builds get fewer and take longer. As a superuser (max_worker_processes needs a restart):",
            *(f"ALTER SYSTEM SET {one} = {wanted};" for one, most in limits.items() if most < wanted),
            "SELECT pg_reload_conf();",
        )
    else:
        yield ok(
            f"index builds get up to {wanted} parallel workers (RECSTORE_INDEX_WORKERS; the server's own"
            f" max_parallel_maintenance_workers, {server['maintenance_workers']}, does not matter)"
        )


@check("locks", "load")
def locks(subject: Subject) -> Iterator[Finding]:
    found = subject.row("doctor_server")["locks_per_transaction"]
    if found < 64:
        yield note(
            f"max_locks_per_transaction is {found}, below PostgreSQL's own 64",
            "A statement on the views locks every attached generation with its indexes, about 28 locks for three, and dropping"
            " a recommender locks all of it at once. As a superuser, with a restart:",
            "ALTER SYSTEM SET max_locks_per_transaction = 64;",
        )
    else:
        yield ok(f"max_locks_per_transaction is {found}")
