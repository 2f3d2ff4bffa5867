"""Jobs that compute no model: publish, reindex, roll back, prune, resize; and dropping a recommender.

The command line, Python and the worker's tasks call these functions and `pipeline.retrain`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from recstore import registry, requests
from recstore.config import Settings
from recstore.errors import LostLock, NotTrained, RecstoreError
from recstore.operations import repair
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.publication import barriers, flipping, generations, indexes, reindexing
from recstore.publication.calibration import Plans
from recstore.publication.flipping import Flip
from recstore.publication.generations import Prepared, Pruned
from recstore.runs import LISTS_NAMESPACE, LOCK_NAMESPACE, Run, Summary, give_lock, job, take_lock
from recstore.source import candidates
from recstore.sql import objects, queries
from recstore.sql.generation import Generation
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current


@dataclass(frozen=True)
class Outcome:
    """The end of a run: the generation it made, live or ready, with the sessions it waits for.

    For a skipped run, the newest generation there is.
    """

    run: int
    generation: int
    live: bool
    blockers: tuple[str, ...]
    warnings: tuple[str, ...]
    skipped: bool = False
    held: bool = False
    """Ready, and kept from going live by a rollback until publications are released."""
    withheld: bool = False
    """Complete, and goes live only when it is published by its number."""


def prepare(run: Run) -> Prepared:
    """Choose the generation to fill, after cleaning up what dead runs left and checking the views that later stages read.

    Raises SourceInvalid, CandidatesInvalid, PermissionDenied.
    """
    _clean(run)
    check_views(run)
    run.generation = generations.next_of(run.connection, run.settings, run.recommender)
    return Prepared(run.generation, barriers.advance(run.connection, run.generation))


def check_views(run: Run) -> None:
    """Repair the recommender's objects where the database has changed around them. Raises as `prepare` does."""
    if found := objects.stale(run.connection, run.recommender):
        objects.upgrade(run.connection, run.settings, run.recommender)
        run.warn(f"The {', the '.join(found)} did not fit pgvector's schema or this version, and are replaced.")
    for relation in repair.disable_row_security(run.connection, run.settings, run.recommender):
        run.warn(f"Row-level security was on for {relation} and hid its rows from readers; it is off again.")
    for view, what in repair.restore_views(run.connection, run.settings, run.recommender).items():
        run.warn(f"The view {run.name}.{view} {what}; it is created again.")
    if run.recommender.definition.candidates.given:
        candidates.check_readable(run.connection, run.recommender)


def advance_barrier(run: Run) -> Summary:
    """Advance the generation's barrier, so that its waiting overlaps the load."""
    blockers = barriers.advance(run.connection, run.generation)
    if not blockers:
        return Summary("the flip waits for no session")
    return Summary(f"the flip waits for {barriers.named(blockers)}", {"flip_waits_for": list(map(str, blockers))})


@contextmanager
def discarding(run: Run) -> Iterator[None]:
    """Give the space of the run's generation back if building it fails: the disk may be full, and the next run far away."""
    try:
        yield
    except LostLock:
        raise
    except RecstoreError:
        with suppress(RecstoreError, psycopg.Error):  # the next run tries again, and the error of the build counts
            generations.discard(run.connection, run.settings, run.generation, f"run {run.number} failed")
        raise


def finish(run: Run, flip: Flip) -> Outcome:
    """Record the flip's outcome, attach the next generation and prune old ones."""
    number = run.generation.number
    if flip.live:
        run.outcome = f"Generation {number} is live."
        requests.settle_ready(run.connection)
    elif flip.held:
        run.state = "ready"
        run.outcome = (
            f"Generation {number} is ready but not live: publications are held since a rollback. Run: recstore release"
            f" {run.name}"
        )
        run.warn(run.outcome)
    elif flip.withheld:
        run.outcome = (
            f"Generation {number} is complete and withheld. To make it live: recstore publish {run.name} {number}"
        )
    else:
        run.state = "ready"
        run.outcome = f"Generation {number} is ready but not live yet: it waits for {barriers.named(flip.blockers)}."
        run.warn(run.outcome)
    try:
        run.stage("tidy", _tidy, run)
    except LostLock:
        raise
    except RecstoreError as error:  # the next run tidies up
        run.warn(f"Tidying up is left to the next run: {error.message}")
    blockers = () if flip.live else tuple(map(str, flip.blockers))
    return Outcome(run.number, number, flip.live, blockers, tuple(run.warnings), held=flip.held, withheld=flip.withheld)


def _tidy(run: Run) -> Summary:
    following = generations.next_of(run.connection, run.settings, run.recommender)
    pruned = _prune(run, run.recommender.definition.publication.keep)
    return Summary(str(pruned), {"next": following.number} | pruned.details())


def _prune(run: Run, keep: int, wait: float | None = None, *, withheld: bool = False) -> Pruned:
    return generations.prune(run.connection, run.settings, run.recommender, keep, wait, withheld=withheld)


@job()
def publish(
    run: Run, generation: int | None = None, *, now: bool = False, wait: float = 0.0, release: bool = True
) -> Outcome:
    """Make the ready generation live if no session prevents it; with `now`, at the operator's word, in any case.
    A withheld one goes live by its number.

    Unless `release` is false, it goes live although publications are held, and ends that, unless a newer one is ready. The
    sessions that `now` disturbs are named in a warning. Raises NothingReady, GenerationNotFound.
    """
    run.stage("prepare", _take_ready, run, generation)
    flip = (
        run.stage("flip", flipping.flip_now, run)
        if now
        else run.stage("flip", flipping.go_live, run, wait, release=release)
    )
    if flip.disturbed:
        run.warn(
            "Published at once. These sessions may get empty answers from the views until their transactions end: "
            + barriers.named(flip.blockers)
        )
    if flip.live:
        _warn_of_newer(run)
    return finish(run, flip)


def _warn_of_newer(run: Run) -> None:
    """Warn of a newer generation that is ready: it goes live next, or stays held."""
    rows = generations.all_of(run.connection, run.recommender)
    ready = [row["generation"] for row in rows if row["state"] == "ready" and row["generation"] > run.generation.number]
    if ready:
        held = queries.one(run.connection, "select_fence", recommender_id=run.recommender.id)["held_at"]
        then = f"stays held until: recstore release {run.name}" if held else "goes live at the next dispatch that can"
        run.warn(f"Generation {max(ready)} is newer and ready, and {then}")


def _take_ready(run: Run, number: int | None) -> Prepared:
    run.generation = flipping.ready_generation(run.connection, run.recommender, number)
    return Prepared(run.generation)


@job()
def prune(run: Run, *, keep: int | None = None, withheld: bool = False) -> dict[str, Any]:
    """Remove old generations, except the live one and the `keep` - 1 newest others, and what dead runs left; with `withheld`
    also a withheld generation.

    Returns {"pruned": [..], "postponed": {generation: sessions that may read it}, "retained": {generation: seconds left}}.
    """
    keep = keep or run.recommender.definition.publication.keep
    done = run.stage("prune", _clean_and_prune, run, keep, withheld=withheld).details()
    run.outcome = f"Pruned generations: {', '.join(map(str, done['pruned'])) or 'none'}."
    return done


def _clean(run: Run) -> None:
    """Clean up what dead runs left: half-built generations, and invalid indexes of complete ones."""
    generations.abandon_unfinished(run.connection, run.recommender)
    for row in generations.all_of(run.connection, run.recommender):
        if row["state"] in ("ready", "withheld", "published"):
            indexes.drop_leftovers(run.connection, run.settings, Generation(run.recommender, row["generation"]))


def _clean_and_prune(run: Run, keep: int, wait: float | None = None, *, withheld: bool = False) -> Pruned:
    _clean(run)
    return _prune(run, keep, wait, withheld=withheld)


@job()
def reindex(run: Run) -> Outcome:
    """Rebuild the indexes of the live generation and calibrate it again, while readers continue.

    Raises NotTrained, ReindexBlocked.
    """
    live = generations.live(run.connection, run.recommender)
    if live is None:
        raise NotTrained(name=run.name)
    run.generation = live
    with plain_errors(f"looking at the views of {run.name!r}", run.connection):
        check_views(run)
    plans = rebuild_indexes(run)
    chosen = "; ".join(f"{kind}: {'HNSW' if plan.ef else 'exact scan'}" for kind, plan in plans.chosen.items())
    run.outcome = f"Generation {live.number} is reindexed and calibrated ({chosen})."
    return Outcome(run.number, live.number, True, (), tuple(run.warnings))


def rebuild_indexes(run: Run) -> Plans:
    """Rebuild the indexes of the run's generation, which is live, and calibrate it again. Raises ReindexBlocked."""
    run.stage("prepare", reindexing.prepare, run)
    rebuilt = run.stage("index", reindexing.rebuild, run)
    plans = run.stage("calibrate", reindexing.calibrate, run, rebuilt)
    run.stage("check", reindexing.check, run)
    return plans


def roll_back(url: str, name: str, *, to: int | None = None) -> tuple[int, int]:
    """Make an earlier generation live again, at once; return (was live, is live). Works during a training.

    Raises NothingToRollBack, GenerationNotFound, NotTrained.
    """
    with connect(url) as connection, plain_errors(f"rolling back {name!r}", connection):
        require_current(connection)
        recommender = registry.get(connection, name)
        return flipping.roll_back(connection, recommender, to)


def release(url: str, name: str) -> bool:
    """Let generations go live again after a rollback; return False if they were not held."""
    with connect(url) as connection, plain_errors(f"releasing {name!r}", connection):
        require_current(connection)
        recommender = registry.get(connection, name)
        return queries.row(connection, "release", recommender_id=recommender.id) is not None


def drop(connection: Connection, settings: Settings, recommender: Registered, *, cascade: bool = False) -> list[str]:
    """Drop a recommender unless a run of it is in progress; return the objects that were dropped with it.

    Raises RunInProgress, DependentObjects, LockTimeout.
    """
    with ExitStack() as locks:
        for namespace in (LOCK_NAMESPACE, LISTS_NAMESPACE):
            take_lock(connection, recommender, namespace)
            locks.callback(give_lock, connection, recommender, namespace)
        return registry.drop(connection, settings, recommender, cascade=cascade)


@job()
def resize(run: Run, factors: int) -> tuple[str, int]:
    """Make room for more factors than the dimensions fixed at creation; return (vector type, dimensions).

    The live generation stays and the next training uses the room. Readers of the views may wait for a moment.
    """
    run.stage("prune", _clean_and_prune, run, run.recommender.definition.publication.keep, 0)
    vector_type, dimensions = registry.storage_for(run.recommender.definition, factors, fixed=False)
    run.stage("resize", _resize, run, vector_type, dimensions)
    run.recommender = registry.get(run.connection, run.name)
    run.stage("attach", _attach, run)
    return vector_type, dimensions


def _resize(run: Run, vector_type: str, dimensions: int) -> Summary:
    generations.resize(run.connection, run.settings, run.recommender, vector_type, dimensions)
    room = {"type": vector_type, "dimensions": dimensions}
    return Summary(f"room for {dimensions} dimensions, {vector_type}", room)


def _attach(run: Run) -> str:
    return f"{generations.next_of(run.connection, run.settings, run.recommender)} is next"
