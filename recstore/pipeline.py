"""The whole job, in order: the composition root of a training.

    source -> interactions -> filters -> confidence matrix -> training -> gate -> exact users -> vectors -> a new generation
    -> live

No transaction is open while Python or the GPU computes. Load, index and flip commit separately.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from psycopg.types.json import Jsonb
from scipy.sparse import csr_matrix

from recstore.definition import Definition
from recstore.evaluation import gate
from recstore.model import confidence, filters, held_out, trained, trainers, vectors, warm_start
from recstore.model.arrays import Matrix
from recstore.model.trained import Stored
from recstore.model.trainers import Factors
from recstore.operations import jobs
from recstore.operations.jobs import Outcome
from recstore.publication import admission, building, calibration, flipping, stored
from recstore.publication.building import Content, Population
from recstore.runs import Run, job
from recstore.source import pulling
from recstore.source.pulling import Pulled
from recstore.sql import queries
from recstore.wording import counted

Examine = Callable[[Run], list[str]]
"""Examines the recommender of a run; returns a sentence for each problem. Doctor has one."""

ALIKE = 100
"""Pairs from which it is no accident that each has a user, or an item, of its own."""


@job()
def retrain(
    run: Run, *, force: bool = False, with_loss: bool = False, withhold: bool = False, examine: Examine | None = None
) -> Outcome:
    """Pull, train and publish. The live generation serves until the flip, and after any error. Raises RecstoreError.

    With `force`, publish what gate or guard would refuse; with `withhold`, leave it to an operator; warn of what `examine` finds.
    """
    recommender, definition, force = run.recommender, run.recommender.definition, force or run.forced
    run.stage("prepare", jobs.prepare, run)
    warn_of_problems(run, examine)
    pulled = run.stage("read", read_source, run)
    if latest := nothing_new(run, pulled):
        return latest
    admission.check_source(run, pulled.report, force)
    interactions, drops = run.stage("filter", filters.apply, pulled.interactions, definition.filters)
    held = run.stage("hold out", held_out.choose, interactions, recommender.held_out_key, definition.gate.held_out)
    live = run.stage("read live", stored.live, run) if held or definition.hyperparameters.warm_iterations else None
    weighted = run.stage("weigh", confidence.weigh, interactions.part(~held.pairs), definition)
    start = partial(warm_start.initial_items, live, definition, interactions.items, held)
    model = run.stage("train", train, run, weighted.matrix, start, with_loss)
    new = trained.of(run.generation.number, definition, interactions, held, weighted, model.factors.fold_in)
    if held:
        gated = partial(gate.judge, tolerance=definition.gate.tolerance, threads=run.settings.threads)
        verdict = run.stage("gate", gated, interactions, held, recommender.held_out_key, new, live)
        admit(run, pulled, verdict, live, force)
    storage = recommender.vector_type, recommender.dimensions, definition.hyperparameters.bias_factors
    users = run.stage("solve users", solve_users, run, weighted.of(interactions), model.factors)
    weights = new.weights(new.item_users)
    published = run.stage("vectors", vectors.publish, model.factors.item_factors, users.factors, weights, *storage)
    content = Content(
        population=Population.of(interactions),
        pulled=pulled.interactions,
        items=published.items,
        users=published.users,
        factors=model.factors.item_factors.shape[1],
        snapshot=pulled.details(),
        filters=[asdict(drop) for drop in drops],
        confidence=weighted.model.constants(),
        training=definition.hyperparameters.model_dump()
        | {"alpha": weighted.alpha}
        | model.used
        | new.weights.stored(),
        fold_in=new.fold_in.constants,
        for_queries=new.for_queries(),
        held_out=new.held_out,
        metrics=verdict.as_dict() if held else None,
    )
    run.stage("barrier", jobs.advance_barrier, run)
    return publish(run, content, release=force, withhold=withhold)


retrain_apart = job("retrain", serves=False)(partial(retrain.work, withhold=True))
"""A training whose generation is withheld. It serves no request: those ask for one that goes live."""


def publish(run: Run, content: Content, *, release: bool, withhold: bool = False) -> Outcome:
    """Build the run's generation, flip to it unless `withhold`, and tidy up; with `release`, also while publications are held."""
    with jobs.discarding(run):
        run.stage("load", building.load, run, content)
        run.stage("index", building.index, run, content)
        run.stage("calibrate", calibration.calibrate, run)
        run.stage("check", building.check, run, content)
    if withhold:
        return jobs.finish(run, flipping.withhold(run))
    return jobs.finish(run, run.stage("flip", flipping.publish, run, run.settings.flip_wait, release=release))


def warn_of_problems(run: Run, examine: Examine | None) -> None:
    for problem in examine(run) if examine else ():
        run.warn(problem)


def read_source(run: Run, trained_by: Definition | None = None) -> Pulled:
    """Read the whole source in one snapshot, reporting the rows; they are combined as `trained_by` says, or the definition."""
    definition = trained_by or run.recommender.definition
    pulled = pulling.read(
        run.connection,
        run.url,
        run.settings,
        run.recommender,
        definition.source,
        application_name=run.application_name,
        with_times=definition.confidence.half_life is not None,
        on_rows=lambda done, total: run.reporter.progress("read", done, total),
    )
    if mixed := pulled.report.mixed:
        run.warn(
            f"{counted(mixed, 'pair')} of a user and an item have negative rows next to positive ones, and only the positive ones"
            f" count. If the negative rows are returns: recstore alter {run.name} --negative net"
        )
    report = pulled.report
    for side, other, alone in (("user", "item", report.users), ("item", "user", report.items)):
        if alone == report.pairs >= ALIKE:
            run.warn(
                f"Each of the {alone:,} {side}s has a single {other}, so there is nothing to learn from. Check whether the"
                f" source's {side} id is the key of its rows."
            )
    return pulled


def nothing_new(run: Run, pulled: Pulled) -> Outcome | None:
    """Skip a run that only the schedule asks for and that would repeat the newest training, or one that the gate refused.

    None for any other run.
    """
    keys = {"recommender_id": run.recommender.id}
    latest = queries.row(run.connection, "latest_trained", **keys)
    if latest is None or latest["live"] is None or not run.scheduled_only:
        return None
    refused = queries.row(run.connection, "latest_refused", **keys)
    if _same(run, pulled, latest["snapshot"].get("digest"), latest["definition"]):
        run.outcome = (
            f"Skipped: the source has nothing new since generation {latest['generation']} was trained"
            f" ({latest['ready_at']:%Y-%m-%d %H:%M:%S %Z})."
        )
    elif refused and refused["live"] == latest["live"] and _same(run, pulled, refused["digest"], refused["definition"]):
        run.outcome = (
            f"Skipped: source and definition are those of run {refused['run']}, which the gate refused. To publish it anyway:"
            f" recstore retrain {run.name} --force"
        )
        run.warn(run.outcome)
    else:
        return None
    run.state, run.generation = "skipped", None
    return Outcome(run.number, latest["generation"], True, (), tuple(run.warnings), skipped=True)


def _same(run: Run, pulled: Pulled, digest: str | None, definition: dict[str, Any]) -> bool:
    """Return whether a training had this source and trains by this definition."""
    untrained = {"schedule", "titles", "candidates", "exclusions", "fallback", "refresh", "lists"}
    before = Definition.model_validate(definition).model_dump(exclude=untrained)
    return digest == pulled.snapshot["digest"] and before == run.recommender.definition.model_dump(exclude=untrained)


def admit(run: Run, pulled: Pulled, verdict: gate.Verdict, live: Stored | None, force: bool) -> None:
    """Refuse as `admission.check_verdict` does, and store what is refused, so that the schedule does not train it again."""
    if live and verdict.worse and not force:
        definition = run.recommender.definition.model_dump(mode="json")
        refused = {"digest": pulled.snapshot["digest"], "definition": definition, "live": live.generation}
        queries.run(run.connection, "note_refusal", run=run.number, refused=Jsonb(refused))
    admission.check_verdict(run, verdict, live, force)


@dataclass(frozen=True, eq=False)
class Training:
    """Factors, and the settings and losses that led to them."""

    factors: Factors
    used: dict[str, Any]

    def details(self) -> dict[str, Any]:
        return self.used

    def __str__(self) -> str:
        loss = f", loss {self.used['losses'][-1]:.6g}" if self.used.get("losses") else ""
        return (
            f"{self.used['trainer']}: {self.used['factors']} factors, {self.used['iterations']} iterations"
            f"{' from the live items' if self.used['warm'] else ''} on the {self.used['device'].upper()}{loss}"
        )


def train(run: Run, matrix: csr_matrix, start: Callable[[int], Matrix | None], with_loss: bool) -> Training:
    """Train on a confidence matrix; `start` returns the initial items for a number of factors, None for a cold start."""
    hyperparameters, settings = run.recommender.definition.hyperparameters, run.settings
    wanted = trainers.wanted_factors(hyperparameters, matrix.shape[1], run.recommender.dimensions)
    initial = start(trainers.usable_factors(wanted, matrix.shape[1])[0])
    if initial is not None:
        fewer = min(hyperparameters.iterations, hyperparameters.warm_iterations)
        hyperparameters = hyperparameters.model_copy(update={"iterations": fewer})
    losses: list[float] = []

    def on_iteration(number: int, _seconds: float, loss: float | None) -> None:
        if number == 0:  # the CPU starts over after the GPU failed
            losses.clear()
        losses.extend([] if loss is None else [loss])
        note = "" if loss is None else f"loss {loss:.6g}"
        run.reporter.progress("train", number + 1, hyperparameters.iterations, note)

    factors = trainers.trainer(hyperparameters.trainer).train(
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
    latent = factors.item_factors.shape[1] - hyperparameters.bias_factors
    used = {"trainer": hyperparameters.trainer, "factors": latent}
    used |= {"iterations": hyperparameters.iterations, "device": factors.device, "warm": initial is not None}
    if "regularization" in factors.fold_in.constants:  # as derived from the data if it was unset
        used["regularization"] = factors.fold_in.constants["regularization"]
    return Training(factors, used | ({"losses": losses} if losses else {}))


@dataclass(frozen=True, eq=False)
class ExactUsers:
    """The users' factors, solved exactly against the final items: float32 (users, factors)."""

    factors: Matrix

    def details(self) -> dict[str, Any]:
        return {"users": len(self.factors)}

    def __str__(self) -> str:
        return f"{len(self.factors):,} users, exactly"


def solve_users(run: Run, matrix: csr_matrix, factors: Factors) -> ExactUsers:
    """Solve all users from all their pairs, held out or not."""
    trainer = trainers.trainer(run.recommender.definition.hyperparameters.trainer)
    return ExactUsers(trainer.solve_users(matrix, factors.fold_in, run.settings.threads))
