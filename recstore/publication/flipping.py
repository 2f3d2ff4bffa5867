"""Making a generation live: wait for whoever planned before it was attached, then update one row.

Never flips by timeout. What cannot go live yet is left `ready`, naming whom it waits for.
"""

from collections.abc import Callable
from contextlib import suppress

from psycopg import errors as pg

from recstore.errors import GenerationNotFound, LostLock, NothingReady, NothingToRollBack, NotTrained
from recstore.postgres.connection import Connection
from recstore.publication import barriers, generations
from recstore.publication.barriers import Blocker
from recstore.runs import Run
from recstore.sql import queries
from recstore.sql.objects import Registered

OnWait = Callable[[list[Blocker]], None]


def go_live(run: Run, generation: int, wait: float, on_wait: OnWait | None = None) -> list[Blocker]:
    """Flips to a ready generation once nobody holds it up; after `wait` seconds returns who does, and nothing flipped."""
    parents = run.recommender.parents()
    blockers = barriers.wait(lambda: barriers.advance(run.connection, generation, parents), wait, on_wait)
    if blockers:
        _note(run.connection, generation, blockers)
        return blockers
    flip(run.connection, run.recommender, generation, run.job, run.number)
    return []


def look_again(connection: Connection, recommender: Registered) -> list[Blocker]:
    """Who still holds up the generation that is ready; notes it, so that operators see it. Raises NothingReady."""
    generation = ready_generation(connection, recommender)
    blockers = barriers.advance(connection, generation, recommender.parents())
    if blockers:
        _note(connection, generation, blockers)
    return blockers


def _note(connection: Connection, generation: int, blockers: list[Blocker]) -> None:
    reason = "waits for " + "; ".join(map(str, blockers))
    connection.execute(queries.query("set_reason"), {"generation": generation, "reason": reason})


def flip_now(run: Run, generation: int) -> list[Blocker]:
    """Flips at the operator's word, whoever holds it up; returns those, who may get empty answers from the views until
    their transactions end."""
    disturbed = go_live(run, generation, 0)
    if disturbed:
        flip(run.connection, run.recommender, generation, run.job, run.number)
        with suppress(pg.LockNotAvailable):  # plans that missed the attach would outlive those transactions
            barriers.invalidate(run.connection, run.recommender.parents())
    return disturbed


def flip(connection: Connection, recommender: Registered, generation: int, job: str, run: int | None) -> int | None:
    """Points at a complete generation and notes it; returns the one that was live. One row is updated, no reader waits.

    `run` is the fencing token: a newer run's makes this raise LostLock. None (a rollback) passes any fence.
    """
    keys = {"recommender_id": recommender.id, "generation": generation, "run": run}
    with connection.transaction():
        state = connection.execute(queries.query("lock_generation"), keys).fetchone()
        if state is None or state["state"] not in ("ready", "published"):
            raise GenerationNotFound(name=recommender.name, generation=generation)
        flipped = connection.execute(queries.query("flip"), keys).fetchone()
        if flipped is None:
            fence = connection.execute(queries.query("select_fence"), keys).fetchone()
            raise LostLock(run=run, name=recommender.name, by=fence["fence"] if fence else None, stage="the flip")
        before: int | None = flipped["from_generation"]
        connection.execute(queries.query("set_published"), keys)
        connection.execute(queries.query("insert_flip"), keys | {"from_generation": before, "job": job})
    return before


def ready_generation(connection: Connection, recommender: Registered) -> int:
    """The newest generation that waits to go live; one that is older than the live one has been overtaken. Raises
    NothingReady."""
    rows = generations.all_of(connection, recommender)
    live = next((row["generation"] for row in rows if row["live"]), 0)
    ready = [row["generation"] for row in rows if row["state"] == "ready" and row["generation"] > live]
    if not ready:
        raise NothingReady(name=recommender.name)
    return int(max(ready))


def roll_back(connection: Connection, recommender: Registered, to: int | None = None) -> tuple[int, int]:
    """Points at an earlier generation (the newest before the live one, or `to`); returns (was live, is live).

    Takes no run lock, so it works while a training runs. Raises NothingToRollBack, GenerationNotFound, NotTrained.
    """
    rows = generations.all_of(connection, recommender)
    live = next((row["generation"] for row in rows if row["live"]), None)
    if live is None:
        raise NotTrained(name=recommender.name)
    published = [row["generation"] for row in rows if row["state"] == "published" and not row["live"]]
    if to is None:
        earlier = [generation for generation in published if generation < live]
        if not earlier:
            raise NothingToRollBack(name=recommender.name)
        to = max(earlier)
    elif to not in published:
        raise GenerationNotFound(name=recommender.name, generation=to)
    before = flip(connection, recommender, to, "rollback", None)
    assert before is not None
    return before, to
