"""The whole job, in order: the composition root of a training.

    source -> interactions -> filters -> confidence matrix -> training -> gate -> exact users -> vectors -> a new generation
    -> live

No transaction is open while Python or the GPU computes; load, index and flip commit separately.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from scipy.sparse import csr_matrix

from recstore.config import Settings
from recstore.definition import Definition, Source
from recstore.errors import GateRefused, SourceShrunk
from recstore.evaluation import gate
from recstore.evaluation.gate import Verdict
from recstore.model import confidence, filters, held_out, trainers, vectors, warm_start
from recstore.model.held_out import HeldOut
from recstore.model.interactions import Interactions, SourceReport
from recstore.model.trained import Stored
from recstore.model.trainers import Factors, FoldIn, Matrix, Trainer
from recstore.operations import jobs
from recstore.operations.jobs import Outcome
from recstore.publication import building, generations, stored
from recstore.runs import Reporter, Run
from recstore.source import inspection, pulling
from recstore.sql import queries
from recstore.sql.schema_revision import require_current


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
        generation = jobs.prepare(run)
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

        trainer = trainers.trainer(hyperparameters.trainer)
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
            jobs.advance(run, generation)

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
        return jobs.finish(run, generation, settings.flip_wait)


def read_source(run: Run) -> tuple[Interactions, SourceReport, dict[str, Any]]:
    """The whole source in one snapshot; see `pulling.read`."""
    recommender = run.recommender
    with run.stage("read") as details:
        pulled, report, snapshot = pulling.read(
            run.url,
            run.settings,
            run.name,
            recommender.definition.source,
            recommender.user_type,
            recommender.item_type,
            application_name=run.application_name,
            has_last_at=inspection.has_last_at(run.connection, run.name),
            expected=inspection.expected_rows(run.connection, run.name),
            on_rows=lambda done, total: run.reporter.progress("read", done, total),
        )
        details |= report.as_dict() | snapshot
    return pulled, report, snapshot


def _guard(run: Run, report: SourceReport, force: bool) -> None:
    """A half-empty upstream table is the commonest accident: it costs nobody the live generation. Raises SourceShrunk."""
    live = run.connection.execute(queries.query("live_size"), {"recommender_id": run.recommender.id}).fetchone()
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
    wanted = hyperparameters.factors or min(trainers.default_factors(items), run.recommender.dimensions)
    initial = start(trainers.usable_factors(wanted, items))
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


def _skipped(run: Run, digest: str) -> Outcome | None:
    """How the run ends if nobody but the schedule asked for it and a training would only repeat the newest one."""
    latest = run.connection.execute(queries.query("latest_trained"), {"recommender_id": run.recommender.id}).fetchone()
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
