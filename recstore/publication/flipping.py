"""Make a generation live: wait for statements planned before it was attached, then update one row.

It never flips by timeout. A generation that cannot go live yet stays `ready` and names the sessions that it waits for.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from psycopg import errors as pg

from recstore.errors import GenerationNotFound, LostLock, NothingReady, NothingToRollBack, NotTrained, PublicationHeld
from recstore.postgres.connection import Connection
from recstore.publication import barriers, erasing, generations
from recstore.publication.barriers import Blocker
from recstore.runs import Run
from recstore.sql import queries
from recstore.sql.generation import Generation
from recstore.sql.objects import Registered


@dataclass(frozen=True)
class Flip:
    """The outcome of a flip: live, or the sessions it waits for; `disturbed` are those an operator's flip did not wait for."""

    live: bool
    blockers: list[Blocker]
    disturbed: bool = False
    held: bool = False
    """Publications are held since a rollback."""
    withheld: bool = False
    """It goes live only when an operator publishes it."""

    def details(self) -> dict[str, Any]:
        return {"live": self.live}

    def __str__(self) -> str:
        return "live" if self.live else "not yet live"


def go_live(run: Run, wait: float, *, release: bool = False) -> Flip:
    """Flip to the run's ready generation, or after `wait` seconds return the sessions that it waits for.

    Where publications are held it stays ready, unless `release`, which ends that.
    """
    blockers = barriers.wait(
        lambda: barriers.advance(run.connection, run.generation),
        wait,
        lambda found: run.reporter.progress("flip", 0, 1, f"waits for {barriers.named(found)}"),
    )
    if blockers:
        _note(run.connection, run.generation, blockers)
        return Flip(False, blockers)
    try:
        flip(run.connection, run.generation, run.job, run.number, release=release)
    except PublicationHeld as held:
        queries.run(run.connection, "set_reason", generation=run.generation.number, reason=f"is held: {held.reason}")
        return Flip(False, [], held=True)
    return Flip(True, [])


def publish(run: Run, wait: float, *, release: bool) -> Flip:
    """Mark the run's generation ready and flip to it as `go_live` does."""
    with erasing.completing(run):
        queries.run(run.connection, "set_ready", generation=run.generation.number)
    return go_live(run, wait, release=release)


def withhold(run: Run) -> Flip:
    """Leave the run's complete generation to an operator: no dispatch and no other run makes it live."""
    publishing = f"recstore publish {run.name} {run.generation.number}"
    reason = f"goes live by {publishing}, and is removed by recstore prune {run.name} --withheld"
    with erasing.completing(run):
        queries.run(run.connection, "set_withheld", generation=run.generation.number, reason=reason)
    return Flip(False, [], withheld=True)


def flip_now(run: Run) -> Flip:
    """Flip at once; sessions that it should wait for may get empty answers from the views until their transactions end."""
    found = go_live(run, 0, release=True)
    if found.live:
        return found
    flip(run.connection, run.generation, run.job, run.number, release=True)
    with suppress(pg.LockNotAvailable):  # plans that missed the attach would outlive those transactions
        barriers.invalidate(run.connection, run.recommender.parents())
    return Flip(True, found.blockers, disturbed=True)


def look_again(connection: Connection, recommender: Registered, number: int | None = None) -> list[Blocker]:
    """Return the sessions that a generation, the ready one, waits for, and store them for operators. Raises NothingReady."""
    generation = ready_generation(connection, recommender, number)
    blockers = barriers.advance(connection, generation)
    if blockers:
        _note(connection, generation, blockers)
    return blockers


def _note(connection: Connection, generation: Generation, blockers: list[Blocker]) -> None:
    reason = f"waits for {barriers.named(blockers)}"
    queries.run(connection, "set_reason", generation=generation.number, reason=reason)


def flip(
    connection: Connection, generation: Generation, job: str, run: int | None, *, release: bool, hold: bool = False
) -> int | None:
    """Point at a complete generation and record the flip; return the one that was live. One row changes, no reader waits.

    `run` is the fencing token; None, for a rollback, passes any fence. With `release` it flips although publications are
    held, and they are held afterwards with `hold` alone. Raises GenerationNotFound, LostLock if a newer run has taken the
    fence, and PublicationHeld.
    """
    name, keys = generation.recommender.name, generation.keys | {"run": run, "release": release, "hold": hold}
    with connection.transaction():
        state = queries.row(connection, "lock_generation", **keys)
        if state is None or state["state"] not in ("ready", "withheld", "published"):
            raise GenerationNotFound(name=name, generation=generation.number)
        flipped = queries.row(connection, "flip", **keys)
        if flipped is None:
            fence = queries.row(connection, "select_fence", **keys)
            if fence and fence["held_at"] and not release and run in (None, fence["fence"]):
                since = f"{fence['held_at']:%Y-%m-%d %H:%M:%S %Z}"
                raise PublicationHeld(name=name, reason=f"{fence['held_by']} rolled back at {since}")
            raise LostLock(run=run, name=name, by=fence["fence"] if fence else None, stage="the flip")
        before: int | None = flipped["from_generation"]
        queries.run(connection, "set_published", **keys)
        queries.run(connection, "insert_flip", **keys, from_generation=before, job=job)
    return before


def ready_generation(connection: Connection, recommender: Registered, number: int | None = None) -> Generation:
    """Return generation `number`, ready or withheld, or the newest that is ready to go live and newer than the live one.

    Raises NothingReady, GenerationNotFound.
    """
    rows = generations.all_of(connection, recommender)
    if number is not None:
        if not any(row["generation"] == number and row["state"] in ("ready", "withheld") for row in rows):
            raise GenerationNotFound(name=recommender.name, generation=number)
        return Generation(recommender, number)
    live = generations.live_number(rows)
    ready = [row["generation"] for row in rows if row["state"] == "ready" and row["generation"] > live]
    if not ready:
        raise NothingReady(name=recommender.name)
    return Generation(recommender, max(ready))


def roll_back(connection: Connection, recommender: Registered, to: int | None = None) -> tuple[int, int]:
    """Point at an earlier generation, `to` or the newest before the live one; return (was live, is live).

    Publications are held afterwards, unless `to` is the newest that was published. Takes no run lock, so it works during a
    training. Raises NothingToRollBack, GenerationNotFound, NotTrained.
    """
    rows = generations.all_of(connection, recommender)
    live = generations.live_number(rows)
    if not live:
        raise NotTrained(name=recommender.name)
    published = [row["generation"] for row in rows if row["state"] == "published" and not row["live"]]
    if to is None:
        to = max((generation for generation in published if generation < live), default=None)
        if to is None:
            raise NothingToRollBack(name=recommender.name)
    elif to not in published:
        raise GenerationNotFound(name=recommender.name, generation=to)
    hold = any(generation > to for generation in (live, *published))
    before = flip(connection, Generation(recommender, to), "rollback", None, release=True, hold=hold)
    assert before is not None
    return before, to
