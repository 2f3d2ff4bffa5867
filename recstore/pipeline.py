"""The whole job, in order: the composition root. The CLI and a worker's tasks call these functions and nothing below them.

    source -> interactions -> filters -> confidence matrix -> training -> gate -> exact users -> vectors -> a new generation
    -> live

No transaction is open while Python or the GPU computes; load, index and flip commit separately.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from scipy.sparse import csr_matrix

from recstore import (
    confidence,
    filters,
    gate,
    held_out,
    registry,
    requests,
    sources,
    sqlfile,
    training,
    vectors,
    warm_start,
)
from recstore.config import Settings
from recstore.database import Connection, connect, plain_errors
from recstore.definition import Definition, Source
from recstore.errors import GateRefused, LostLock, NotTrained, RecstoreError, SourceShrunk
from recstore.gate import Verdict
from recstore.held_out import HeldOut
from recstore.interactions import Interactions, SourceReport
from recstore.objects import Registered
from recstore.publication import barriers, building, flipping, generations, reindexing, stored
from recstore.publication.barriers import Blocker
from recstore.publication.stored import Stored
from recstore.readiness import require_current
from recstore.runs import LISTS_NAMESPACE, LOCK_NAMESPACE, Reporter, Run, give_lock, take_lock
from recstore.training import Factors, FoldIn, Matrix, Trainer


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
    with plain_errors(f"creating {name!r}"):
        generations.attach(connection, settings, recommender)
    return recommender


def retrain(
    url: str,
    settings: Settings,
    name: str,
    *,
    reporter: Reporter | None = None,
    with_loss: bool = False,
    force: bool = False,
    requested: bool = False,
    time_limit: float | None = None,
) -> Outcome:
    """Pulls, filters, trains and publishes recommender `name`. The live generation serves until the flip, and after any
    error. With `force`, also what the gate or the source guard would refuse. With `requested`, on behalf of those who ask for
    it (see `Run`): where only the schedule does, and neither source nor definition changed since the newest training, it is
    skipped. Raises RecstoreError."""
    with Run(
        url, settings, name, "retrain", reporter, require_current, requested=requested, time_limit=time_limit
    ) as run:
        recommender, definition = run.recommender, run.recommender.definition
        hyperparameters = definition.hyperparameters
        force = force or any(row["force"] for row in run.requests)
        generation = prepare(run)
        pulled, report, snapshot = read_source(run)
        if requested and (skipped := _skipped(run, snapshot["digest"])):
            return skipped
        _guard(run, report, force)

        with run.stage("filter") as details:
            interactions, drops = filters.apply(pulled, definition.filters)
            details |= {"users": len(interactions.users), "items": len(interactions.items), "pairs": len(interactions)}
            details["dropped"] = [str(drop) for drop in drops]

        with run.stage("hold out") as details:
            held = held_out.choose(interactions, recommender.held_out_key, definition.gate.held_out)
            seen = interactions.part(~held.pairs) if held else interactions
            live = _live(run) if held or hyperparameters.warm_iterations else None
            details |= {"pairs": int(held.pairs.sum())}

        with run.stage("weigh") as details:
            model = confidence.fit(seen, definition.confidence)
            alpha = confidence.alpha_for(seen, hyperparameters.alpha)
            matrix = model.matrix(seen, alpha)
            details |= {"function": model.function, "alpha": alpha, "scale_factor": round(model.scale_factor, 6)}

        trainer = training.trainer(hyperparameters.trainer)
        start = partial(warm_start.initial_items, live, definition, interactions.items, held)
        factors, told = _train(run, trainer, matrix, start, with_loss)
        verdict = _judge(run, interactions, held, matrix, trainer, factors.fold_in, live, force) if held else None

        with run.stage("solve users") as details:
            everything = model.matrix(interactions, alpha) if held else matrix
            user_factors = trainer.solve_users(everything, factors.fold_in, settings.threads)
            details["users"] = len(user_factors)

        with run.stage("vectors") as details:
            item_vectors = vectors.item_vectors(factors.item_factors, recommender.dimensions)
            user_vectors = vectors.user_vectors(user_factors, recommender.dimensions)
            details |= {"dimensions": recommender.dimensions, "type": recommender.vector_type}
            _advance(run, generation)

        building.build(
            run,
            generation,
            building.Content(
                population=building.Population.of(interactions),
                pulled=pulled,
                items=item_vectors,
                users=user_vectors,
                factors=factors.item_factors.shape[1],
                snapshot=report.as_dict() | snapshot,
                filters=[asdict(drop) for drop in drops],
                confidence=model.constants(),
                training=hyperparameters.model_dump() | {"alpha": alpha} | told,
                fold_in=factors.fold_in.constants,
                held_out=held.stored(interactions),
                metrics=verdict.as_dict() if verdict else None,
            ),
        )
        return finish(run, generation, settings.flip_wait)


def prepare(run: Run) -> int:
    """What dead runs left is out of the way, the source's view is there; returns the generation to be filled."""
    with run.stage("prepare") as details:
        _clean(run)
        for view in registry.restore_views(run.connection, run.settings, run.recommender):
            run.warn(f"The view {run.name}.{view} was gone, perhaps dropped along with what it read; it is made anew.")
        generation = run.generation = generations.next_of(run.connection, run.settings, run.recommender)
        barrier = _advance(run, generation)
        details |= {"generation": generation} | ({"flip_waits_for": barrier} if barrier else {})
    return generation


def read_source(run: Run) -> tuple[Interactions, SourceReport, dict[str, Any]]:
    """The whole source in one snapshot; see `sources.read`."""
    recommender = run.recommender
    with run.stage("read") as details:
        pulled, report, snapshot = sources.read(
            run.url,
            run.settings,
            run.name,
            recommender.definition.source,
            recommender.user_type,
            recommender.item_type,
            application_name=run.application_name,
            has_last_at=sources.has_last_at(run.connection, run.name),
            expected=sources.expected_rows(run.connection, run.name),
            on_rows=lambda done, total: run.reporter.progress("read", done, total),
        )
        details |= report.as_dict() | snapshot
    return pulled, report, snapshot


def _guard(run: Run, report: SourceReport, force: bool) -> None:
    """A half-empty upstream table is the commonest accident: it costs nobody the live generation. Raises SourceShrunk."""
    live = run.connection.execute(sqlfile.query("live_size"), {"recommender_id": run.recommender.id}).fetchone()
    if live is None:
        return
    least = 1 - run.recommender.definition.gate.max_fall
    fallen = [
        f"{now:,} {what} instead of {live[what]:,} ({now / live[what] - 1:+.0%})"
        for what, now in (("users", report.users), ("items", report.items), ("pairs", report.pairs))
        if now < least * live[what]
    ]
    if not fallen:
        return
    told = ", ".join(fallen)
    if force:
        run.warn(f"Published by force although the source has lost most of its rows: {told}.")
    elif Source.model_validate(live["source"]) != run.recommender.definition.source:
        run.warn(f"The source is another one than that of generation {live['generation']}, and smaller: {told}.")
    else:
        raise SourceShrunk(name=run.name, fallen=told, generation=live["generation"], most=f"{1 - least:.0%}")


def _live(run: Run) -> Stored | None:
    """The live generation read back: what a new one goes on from, and is compared with."""
    number = generations.live(run.connection, run.recommender)
    if number is None:
        return None
    return stored.read(run.connection, run.url, run.recommender, number, run.application_name)


def _train(
    run: Run, trainer: Trainer, matrix: csr_matrix, start: Callable[[int], Matrix | None], with_loss: bool
) -> tuple[Factors, dict[str, Any]]:
    """Factors, and what was done. `start` gives the items to go on from, None for a cold start, given the number of
    factors."""
    hyperparameters, settings = run.recommender.definition.hyperparameters, run.settings
    items = matrix.shape[1]
    wanted = hyperparameters.factors or min(training.default_factors(items), run.recommender.dimensions)
    initial = start(training.usable_factors(wanted, items))
    if initial is not None:
        fewer = min(hyperparameters.iterations, hyperparameters.warm_iterations)
        hyperparameters = hyperparameters.model_copy(update={"iterations": fewer})
    losses: list[float] = []

    def on_iteration(number: int, _seconds: float, loss: float | None) -> None:
        if number == 0:  # also where the CPU starts over after the GPU failed
            losses.clear()
        note = "" if loss is None else f"loss {loss:.6g}"
        losses.extend([] if loss is None else [loss])
        run.reporter.progress("train", number + 1, hyperparameters.iterations, note)

    with run.stage("train") as details:
        factors = trainer.train(
            matrix,
            hyperparameters,
            factors=wanted,
            device=settings.device,
            threads=settings.threads,
            item_factors=initial,
            on_iteration=on_iteration,
            with_loss=with_loss,
        )
        run.device = factors.device
        for sentence in factors.warnings:
            run.warn(sentence)
        details |= {"trainer": hyperparameters.trainer, "factors": factors.item_factors.shape[1]}
        details |= {"iterations": hyperparameters.iterations, "device": factors.device, "warm": initial is not None}
        if "regularization" in factors.fold_in.constants:  # where it was unset, what the data came to
            details["regularization"] = factors.fold_in.constants["regularization"]
        details |= {"losses": losses} if losses else {}
    return factors, details


def _judge(
    run: Run,
    interactions: Interactions,
    held: HeldOut,
    matrix: csr_matrix,
    trainer: Trainer,
    fold_in: FoldIn,
    live: Stored | None,
    force: bool,
) -> Verdict:
    """What the held-out pairs say of the new generation. Raises GateRefused where it is worse than the live one."""
    recommender, gate_settings = run.recommender, run.recommender.definition.gate
    with run.stage("gate") as details:
        verdict = gate.judge(
            interactions, held, recommender.held_out_key, matrix, trainer, fold_in, live, run.settings.threads
        )
        refused = verdict.live is not None and verdict.live.worse(gate_settings.tolerance)
        details |= verdict.as_dict() | {"refused": refused and not force}
    if verdict.popularity.worse(0):
        run.warn(f"It recommends worse than popularity does: {verdict.popularity}.")
    if refused and not force:
        assert live is not None
        raise GateRefused(
            generation=run.generation, name=run.name, comparison=verdict.live, tolerance=f"{gate_settings.tolerance:.0%}",
            live=live.generation,
        )  # fmt: skip
    if refused:
        run.warn(f"Published by force although it is worse than the live generation: {verdict.live}.")
    return verdict


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


def _skipped(run: Run, digest: str) -> Outcome | None:
    """How the run ends if nobody but the schedule asked for it and a training would only repeat the newest one."""
    latest = run.connection.execute(sqlfile.query("latest_trained"), {"recommender_id": run.recommender.id}).fetchone()
    if latest is None or latest["live"] is None or any(row["origin"] != "schedule" for row in run.requests):
        return None
    apart = {"schedule", "titles", "candidates", "lists"}  # no part of a training
    trained = Definition.model_validate(latest["definition"]).model_dump(exclude=apart)
    if latest["snapshot"].get("digest") != digest or trained != run.recommender.definition.model_dump(exclude=apart):
        return None
    run.state, run.generation = "skipped", None
    run.outcome = (
        f"Skipped: the source has nothing new since generation {latest['generation']} was trained"
        f" ({latest['ready_at']:%Y-%m-%d %H:%M:%S %Z})."
    )
    return Outcome(run.number, latest["generation"], True, (), tuple(run.warnings), skipped=True)


def _named(blockers: list[Blocker]) -> str:
    return "; ".join(map(str, blockers))


def _clean(run: Run) -> None:
    """Takes what dead runs left half-built out of the way; this run holds the lock, so nobody is at work on it."""
    for row in generations.all_of(run.connection, run.recommender):
        if row["state"] == "building":
            generations.mark_pruning(
                run.connection, run.recommender, row["generation"], f"run {row['run']} did not finish it"
            )


def _advance(run: Run, generation: int) -> list[str]:
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
            _clean(run)
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
        plans = reindexing.reindex(run, live)
        told = "; ".join(f"{kind}: {'exact scan' if plan['ef'] is None else 'HNSW'}" for kind, plan in plans.items())
        run.outcome = f"Generation {live} is reindexed and calibrated ({told})."
        return Outcome(run.number, live, True, (), tuple(run.warnings))


def roll_back(url: str, settings: Settings, name: str, *, to: int | None = None) -> tuple[int, int]:  # noqa: ARG001
    """Makes an earlier generation live again, at once; returns (was live, is live). Works while a training runs.
    Raises NothingToRollBack, GenerationNotFound, NotTrained."""
    connection = connect(url)
    try:
        with plain_errors(f"rolling back {name!r}"):
            require_current(connection)
            recommender = registry.get(connection, name)
            return flipping.roll_back(connection, recommender, to)
    finally:
        connection.close()


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
            _clean(run)
            _pruned(run, run.recommender.definition.publication.keep, 0)
            vector_type, dimensions = registry.storage_for(run.recommender.definition, factors, fixed=False)
            generations.resize(run.connection, settings, run.recommender, vector_type, dimensions)
            details |= {"type": vector_type, "dimensions": dimensions}
        with run.stage("attach") as details:
            run.recommender = registry.get(run.connection, name)
            details["generation"] = generations.next_of(run.connection, settings, run.recommender)
    return vector_type, dimensions
