"""The whole job, in order: the composition root. The CLI and a worker's tasks call these functions and nothing below them.

    source -> interactions -> filters -> confidence matrix -> training -> exact users -> vectors -> a new generation -> live

No transaction is open while Python or the GPU computes; load, index and flip commit separately.
"""

from dataclasses import asdict, dataclass
from typing import Any

from recstore import confidence, filters, registry, requests, sources, sqlfile, training, vectors
from recstore.config import Settings
from recstore.database import Connection, connect, plain_errors
from recstore.definition import Definition
from recstore.errors import LostLock, NotTrained, RecstoreError
from recstore.migrate import require_current
from recstore.objects import Registered
from recstore.publication import barriers, building, flipping, generations, reindexing
from recstore.publication.barriers import Blocker
from recstore.runs import Reporter, Run, give_lock, take_lock


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
    requested: bool = False,
    time_limit: float | None = None,
) -> Outcome:
    """Pulls, filters, trains and publishes recommender `name`. The live generation serves until the flip, and after any
    error. With `requested`, on behalf of those who ask for it (see `Run`): where only the schedule does, and neither source
    nor definition changed since the newest training, it is skipped. Raises RecstoreError."""
    with Run(
        url, settings, name, "retrain", reporter, require_current, requested=requested, time_limit=time_limit
    ) as run:
        recommender, definition = run.recommender, run.recommender.definition
        with run.stage("prepare") as details:
            _clean(run)
            if registry.restore_source_view(run.connection, settings, recommender):
                run.warn(
                    f"The view {name}.interactions was gone, perhaps dropped along with the source; it is made anew."
                )
            generation = run.generation = generations.next_of(run.connection, settings, recommender)
            barrier = _advance(run, generation)
            details |= {"generation": generation} | ({"flip_waits_for": barrier} if barrier else {})

        with run.stage("read") as details:
            pulled, report, snapshot = sources.read(
                url,
                settings,
                name,
                definition.source,
                recommender.user_type,
                recommender.item_type,
                application_name=run.application_name,
                has_last_at=_has_last_at(run),
                expected=sources.expected_rows(run.connection, name),
                on_rows=lambda done, total: run.reporter.progress("read", done, total),
            )
            details |= report.as_dict() | snapshot
        if requested and (skipped := _skipped(run, snapshot["digest"])):
            return skipped

        with run.stage("filter") as details:
            interactions, drops = filters.apply(pulled, definition.filters)
            details |= {"users": len(interactions.users), "items": len(interactions.items), "pairs": len(interactions)}
            details["dropped"] = [str(drop) for drop in drops]

        with run.stage("weigh") as details:
            model = confidence.fit(interactions, definition.confidence)
            matrix = model.matrix(interactions, definition.hyperparameters.alpha)
            details |= {"function": model.function, "scale_factor": round(model.scale_factor, 6)}

        with run.stage("train") as details:
            trainer = training.trainer(definition.hyperparameters.trainer)
            wanted = definition.hyperparameters.factors or min(
                training.default_factors(len(interactions.items)), recommender.dimensions
            )
            iterations = definition.hyperparameters.iterations
            losses: list[float] = []

            def on_iteration(number: int, _seconds: float, loss: float | None) -> None:
                if number == 0:  # also where the CPU starts over after the GPU failed
                    losses.clear()
                note = "" if loss is None else f"loss {loss:.6g}"
                losses.extend([] if loss is None else [loss])
                run.reporter.progress("train", number + 1, iterations, note)

            factors = trainer.train(
                matrix,
                definition.hyperparameters,
                factors=wanted,
                device=settings.device,
                threads=settings.threads,
                on_iteration=on_iteration,
                with_loss=with_loss,
            )
            run.device = factors.device
            for sentence in factors.warnings:
                run.warn(sentence)
            used = factors.item_factors.shape[1]
            details |= {"trainer": definition.hyperparameters.trainer, "factors": used, "iterations": iterations}
            details |= {"device": factors.device} | ({"losses": losses} if losses else {})

        with run.stage("solve users") as details:
            user_factors = trainer.solve_users(matrix, factors.fold_in, settings.threads)
            details["users"] = len(user_factors)

        with run.stage("vectors") as details:
            item_vectors = vectors.item_vectors(factors.item_factors, recommender.dimensions)
            user_vectors = vectors.user_vectors(user_factors, recommender.dimensions)
            details |= {"dimensions": recommender.dimensions, "type": recommender.vector_type}
            _advance(run, generation)

        hyperparameters = definition.hyperparameters.model_dump() | {"factors": used, "device": factors.device}
        building.build(
            run,
            generation,
            building.Content(
                interactions=interactions,
                pulled=pulled,
                items=item_vectors,
                users=user_vectors,
                factors=used,
                snapshot=report.as_dict() | snapshot,
                filters=[asdict(drop) for drop in drops],
                confidence=model.constants(),
                training=hyperparameters | ({"losses": losses} if losses else {}),
            ),
        )
        return _finish(run, generation, settings.flip_wait)


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
            return _finish(run, generation, wait)
        with run.stage("flip") as details:
            disturbed = flipping.flip_now(run, generation)
            details["live"] = True
        if disturbed:
            run.warn("Published at once; these sessions may get empty answers from the views: " + _named(disturbed))
        return _finish(run, generation, wait, live=True)


def _finish(run: Run, generation: int, wait: float, *, live: bool = False) -> Outcome:
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
    apart = {"schedule", "titles"}
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


def _has_last_at(run: Run) -> bool:
    found = run.connection.execute(
        "SELECT FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'last_at' AND NOT attisdropped",
        [run.recommender.relation("interactions")],
    ).fetchone()
    return found is not None


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
    take_lock(connection, recommender)
    try:
        return registry.drop(connection, settings, recommender, cascade=cascade)
    finally:
        if not connection.closed:
            give_lock(connection, recommender)


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
