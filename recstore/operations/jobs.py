"""What is done to a recommender and its generations without computing one: create, publish, reindex, roll back, prune, make
room, drop. The CLI and a worker's tasks call these functions, and `pipeline.retrain`, and nothing below them."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from recstore import registry, requests
from recstore.config import Settings
from recstore.definition import Definition
from recstore.errors import LostLock, NotTrained, RecstoreError
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.publication import barriers, flipping, generations, reindexing
from recstore.publication.barriers import Blocker
from recstore.runs import LISTS_NAMESPACE, LOCK_NAMESPACE, Reporter, Run, give_lock, take_lock
from recstore.source import candidates
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the generation it made, live or `ready` with those it waits for; or, `skipped`, the newest one there
    was, because the source has nothing new."""

    run: int
    generation: int
    live: bool
    blockers: tuple[str, ...]
    warnings: tuple[str, ...]
    skipped: bool = False


def create(connection: Connection, settings: Settings, name: str, definition: Definition) -> Registered:
    """Registers recommender `name` and attaches its first, empty generation. Nothing is read or trained yet.
    Raises InvalidName, SourceInvalid, PermissionDenied, .."""
    recommender = registry.create(connection, name, definition)
    with plain_errors(f"creating {name!r}", connection):
        generations.attach(connection, settings, recommender)
    return recommender


def prepare(run: Run) -> int:
    """What dead runs left is out of the way, the source's view is there; returns the generation to be filled."""
    with run.stage("prepare") as details:
        clean(run)
        _see_to_views(run)
        generation = run.generation = generations.next_of(run.connection, run.settings, run.recommender)
        barrier = advance(run, generation)
        details |= {"generation": generation} | ({"flip_waits_for": barrier} if barrier else {})
    return generation


def _see_to_views(run: Run) -> None:
    """The views that are asked later, in the last stages, are there and may be read. Raises SourceInvalid, CandidatesInvalid,
    PermissionDenied."""
    for view in registry.restore_views(run.connection, run.settings, run.recommender):
        run.warn(f"The view {run.name}.{view} was gone, perhaps dropped along with what it read; it is made anew.")
    if run.recommender.definition.candidates.given:
        candidates.check_readable(run.connection, run.recommender)


def publish(
    url: str, settings: Settings, name: str, *, now: bool = False, wait: float = 0.0, reporter: Reporter | None = None
) -> Outcome:
    """Makes the generation that is `ready` live, if nobody holds it up any more; with `now`, at the operator's word,
    even so: the sessions named in `warnings` may then get empty answers from the views until their transactions end.
    Raises NothingReady."""
    with Run(url, settings, name, "publish", reporter, require_current) as run:
        with run.stage("prepare") as details:
            generation = run.generation = flipping.ready_generation(run.connection, run.recommender)
            details["generation"] = generation
        if not now:
            return finish(run, generation, wait)
        with run.stage("flip") as details:
            disturbed = flipping.flip_now(run, generation)
            details["live"] = True
        if disturbed:
            run.warn("Published at once; these sessions may get empty answers from the views: " + _named(disturbed))
        return finish(run, generation, wait, live=True)


def finish(run: Run, generation: int, wait: float, *, live: bool = False) -> Outcome:
    """Flip if possible, then what a publication leaves behind it: the next generation attached, old ones pruned."""
    blockers: list[Blocker] = []
    if not live:
        with run.stage("flip") as details:
            blockers = flipping.go_live(
                run,
                generation,
                wait,
                lambda found: run.reporter.progress("flip", 0, 1, f"waits for {_named(found)}"),
            )
            details["live"] = not blockers
    if blockers:
        run.state = "ready"
        run.outcome = f"Generation {generation} is ready but not live yet: it waits for {_named(blockers)}."
        run.warn(run.outcome)
    else:
        run.outcome = f"Generation {generation} is live."
        requests.settle_ready(run.connection)
    try:
        with run.stage("tidy") as details:
            details["next"] = generations.next_of(run.connection, run.settings, run.recommender)
            details |= _pruned(run, run.recommender.definition.publication.keep)
    except LostLock:
        raise
    except RecstoreError as error:  # the generation is live; what is left undone here is done by the next run
        run.warn(f"Tidying up was left for the next run: {error.message}")
    return Outcome(run.number, generation, not blockers, tuple(map(str, blockers)), tuple(run.warnings))


def _named(blockers: list[Blocker]) -> str:
    return "; ".join(map(str, blockers))


def clean(run: Run) -> None:
    """Takes what dead runs left half-built out of the way; this run holds the lock, so nobody is at work on it."""
    for row in generations.all_of(run.connection, run.recommender):
        if row["state"] == "building":
            generations.mark_pruning(
                run.connection, run.recommender, row["generation"], f"run {row['run']} did not finish it"
            )


def advance(run: Run, generation: int) -> list[str]:
    """Gets the flip's waiting over with while the training runs."""
    return [str(blocker) for blocker in barriers.advance(run.connection, generation, run.recommender.parents())]


def _pruned(run: Run, keep: int, wait: float | None = None) -> dict[str, Any]:
    done = generations.prune(run.connection, run.settings, run.recommender, keep, wait)
    told: dict[str, Any] = {"pruned": done.removed}
    if done.postponed:
        told["postponed"] = {generation: [str(b) for b in blockers] for generation, blockers in done.postponed.items()}
    if done.retained:
        told["retained"] = {generation: round(seconds) for generation, seconds in done.retained.items()}
    return told


def prune(
    url: str,
    settings: Settings,
    name: str,
    *,
    keep: int | None = None,
    reporter: Reporter | None = None,
    requested: bool = False,
    time_limit: float | None = None,
) -> dict[str, Any]:
    """Removes old generations but the live one and the `keep` - 1 newest others (default: as the recommender says), and
    what dead runs left; returns {"pruned": [..], "postponed": {generation: who may still read it}, "retained": {generation:
    seconds until it may go}}."""
    with Run(
        url, settings, name, "prune", reporter, require_current, requested=requested, time_limit=time_limit
    ) as run:
        with run.stage("prune") as details:
            clean(run)
            details |= _pruned(run, keep or run.recommender.definition.publication.keep)
        run.outcome = f"Pruned generations: {', '.join(map(str, details['pruned'])) or 'none'}."
        return details


def reindex(
    url: str,
    settings: Settings,
    name: str,
    *,
    reporter: Reporter | None = None,
    requested: bool = False,
    time_limit: float | None = None,
) -> Outcome:
    """Rebuilds the indexes of the live generation and calibrates it again, without retraining; readers go on. `requested` as
    in `retrain`. Raises NotTrained, ReindexBlocked."""
    with Run(
        url, settings, name, "reindex", reporter, require_current, requested=requested, time_limit=time_limit
    ) as run:
        live = generations.live(run.connection, run.recommender)
        if live is None:
            raise NotTrained(name=name)
        run.generation = live
        with plain_errors(f"looking at the views of {name!r}", run.connection):
            _see_to_views(run)
        plans = reindexing.reindex(run, live)
        told = "; ".join(f"{kind}: {'exact scan' if plan['ef'] is None else 'HNSW'}" for kind, plan in plans.items())
        run.outcome = f"Generation {live} is reindexed and calibrated ({told})."
        return Outcome(run.number, live, True, (), tuple(run.warnings))


def roll_back(url: str, name: str, *, to: int | None = None) -> tuple[int, int]:
    """Makes an earlier generation live again, at once; returns (was live, is live). Works while a training runs.
    Raises NothingToRollBack, GenerationNotFound, NotTrained."""
    with connect(url) as connection, plain_errors(f"rolling back {name!r}", connection):
        require_current(connection)
        recommender = registry.get(connection, name)
        return flipping.roll_back(connection, recommender, to)


def drop(connection: Connection, settings: Settings, recommender: Registered, *, cascade: bool = False) -> list[str]:
    """Removes a recommender, unless a run of it is in progress; returns what was dropped along with it.
    Raises RunInProgress, DependentObjects, LockTimeout."""
    with ExitStack() as locks:
        for namespace in (LOCK_NAMESPACE, LISTS_NAMESPACE):
            take_lock(connection, recommender, namespace)
            locks.callback(_give_back, connection, recommender, namespace)
        return registry.drop(connection, settings, recommender, cascade=cascade)


def _give_back(connection: Connection, recommender: Registered, namespace: int) -> None:
    if not connection.closed:
        give_lock(connection, recommender, namespace)


def resize(
    url: str, settings: Settings, name: str, factors: int, *, reporter: Reporter | None = None
) -> tuple[str, int]:
    """Makes room for more factors than the dimensions fixed at creation; returns (vector type, dimensions). The live
    generation serves on; the next training uses the room. Readers of the views may wait a moment."""
    with Run(url, settings, name, "resize", reporter, require_current) as run:
        with run.stage("resize") as details:
            clean(run)
            _pruned(run, run.recommender.definition.publication.keep, 0)
            vector_type, dimensions = registry.storage_for(run.recommender.definition, factors, fixed=False)
            generations.resize(run.connection, settings, run.recommender, vector_type, dimensions)
            details |= {"type": vector_type, "dimensions": dimensions}
        with run.stage("attach") as details:
            run.recommender = registry.get(run.connection, name)
            details["generation"] = generations.next_of(run.connection, settings, run.recommender)
    return vector_type, dimensions
