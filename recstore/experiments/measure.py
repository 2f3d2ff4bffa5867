"""A split, a definition, and what came of it: training on the training part, metrics of the test part, beside baselines,
by a curve, and through the store. What `evaluate` and `benchmark` have in common.

    split -> training -> metrics -> popularity, item-kNN -> a scratch recommender -> the metrics of what SQL returns
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore import pipeline
from recstore.config import Settings
from recstore.definition import Definition, Hyperparameters, Publication, Search, Storage
from recstore.errors import InvalidInput, RecstoreError
from recstore.evaluation import metrics, scorers, splits
from recstore.evaluation.curves import METRIC, LearningCurve, sample
from recstore.evaluation.fitted import FittedModel, fit
from recstore.evaluation.metrics import Metrics
from recstore.evaluation.negatives import sampled_negatives
from recstore.evaluation.results import CurvePoint, Evaluation, Example, ModelResult
from recstore.evaluation.scorers import FactorScorer, Scorer
from recstore.evaluation.splits import SEED, Split
from recstore.experiments import through_sql
from recstore.experiments.scratch import scratch
from recstore.experiments.steps import Steps, Within
from recstore.postgres.connection import connect
from recstore.types import IdType

TOO_FEW = 100
"""Measured users below which a metric says little: its standard error is about a twentieth."""


@dataclass(frozen=True)
class Wanted:
    """What is measured, and on whom. `users`: so many of those that can be measured (a whole number), or a share of them;
    None: all. `negatives`: sampled ones per user, 0: the full ranking. `curve`: a point every so many iterations, 0: none."""

    ks: tuple[int, ...] = (10, 20)
    users: int | float | None = None
    include_seen: bool = False
    negatives: int = 0
    curve: int = 0
    through_sql: bool = False
    search: Search = "auto"
    seed: int = SEED

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise InvalidInput("Each k must be at least 1: it is the length of a list.")
        if self.users is not None and not (self.users >= 1 if isinstance(self.users, int) else 0 < self.users <= 1):
            raise InvalidInput(
                "The users to measure must be at least 1, or a share of more than 0 % and at most 100 %."
            )
        if self.search not in get_args(Search):
            raise InvalidInput(f"--search is {self.search!r}: choose one of {', '.join(get_args(Search))}.")
        if self.negatives < 0 or self.curve < 0:
            raise InvalidInput(
                "Neither the number of sampled negatives nor the iterations between two points can be below 0."
            )


@dataclass(frozen=True)
class Store:
    """Where a scratch recommender is made, of what id types, with what room for factors; `keep`: under this name, to stay."""

    url: str
    user_type: IdType
    item_type: IdType
    dimensions: int | None = None
    keep: str | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """What `measure` found: results in the order of `results.Evaluation`, the model, and the users measured (indices)."""

    results: list[ModelResult]
    curve: list[CurvePoint]
    item_factors: NDArray[np.float32]  # (items of the split, factors); zeros without a training pair
    users: NDArray[np.intp]
    warnings: list[str]


def measure(
    split: Split,
    definition: Definition,
    wanted: Wanted,
    steps: Steps,
    settings: Settings,
    *,
    name: str,
    most_factors: int | None = None,
    negatives: sparse.csr_matrix | None = None,
    store: Store | None = None,
    others: Mapping[str, Definition] | None = None,
) -> Measured:
    """Trains on all but the test part of `split`, with the definition's confidence and hyperparameters, and measures the
    test part, once for each model. A curve is drawn before that, from the validation part, which the split must have then.

    `negatives` (users x items) are ranked against the test items, where they are given; else `wanted` may ask for sampled
    ones. `others`, by name, are trained and measured last, in the same way. Raises RecstoreError.
    """
    curve = _curve(split, definition, wanted, steps, settings, most_factors) if wanted.curve else []
    split = split.refit()
    users = _users(split, wanted)
    warnings = split.remarks()
    if len(users) < TOO_FEW:
        warnings.append(f"Only {len(users)} users are measured, so the metrics are rough.")
    if negatives is None and wanted.negatives:
        negatives = sampled_negatives(split, users, wanted.negatives, wanted.seed)

    with steps.step("train") as details:
        fitted, scorer = _fit(split, definition, settings, most_factors, steps, name)
        hyperparameters = fitted.hyperparameters
        warnings.extend(fitted.factors.warnings)
        details |= {"seconds of training": round(fitted.seconds, 4)}
        details["told"] = _trained(fitted)
    test = _Test(split, users, wanted, negatives, settings.threads, steps)
    result = ModelResult(name, test.measure(scorer).values, fitted.seconds, _described(definition, hyperparameters))
    results = [result, *test.baselines()]
    if store is not None and wanted.through_sql:
        exact = definition.model_copy(update={"hyperparameters": hyperparameters})
        results.append(_through_store(split, exact, wanted, test, store, settings, result, warnings))
    for other, its in (others or {}).items():
        with steps.step("train") as details:
            trained, of_other = _fit(split, its, settings, most_factors, steps, other)
            details["told"] = f"{other}: {_trained(trained)}"
        told = _described(its, trained.hyperparameters)
        results.append(ModelResult(other, test.measure(of_other).values, trained.seconds, told))
    warnings += _worse(results)
    return Measured(results, curve, scorer.item_factors, users, warnings)


def described(
    name: str, split: Split, wanted: Wanted, measured: Measured, shown: list[Example], taken_at: str
) -> Evaluation:
    """All of it as one result."""
    split = split.refit()
    return Evaluation(
        recommender=name,
        split=split.how,
        seed=wanted.seed,
        users=len(split.train.users),
        items=len(split.train.items),
        train_pairs=len(split.train),
        test_pairs=len(split.test),
        evaluated_users=len(measured.users),
        results=measured.results,
        taken_at=taken_at,
        curve=measured.curve,
        examples=shown,
        warnings=measured.warnings,
    )


@dataclass(frozen=True, eq=False)
class _Test:
    """What every model is measured on, in the same way."""

    split: Split
    users: NDArray[np.intp]
    wanted: Wanted
    negatives: sparse.csr_matrix | None
    threads: int
    steps: Steps
    train: sparse.csr_matrix = field(init=False)
    test: sparse.csr_matrix = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", splits.count_matrix(self.split.train))
        object.__setattr__(self, "test", splits.count_matrix(self.split.test))

    def measure(self, scorer: Scorer) -> Metrics:
        with self.steps.step("measure") as details:
            found = metrics.evaluate(
                scorer,
                self.train,
                self.test,
                ks=self.wanted.ks,
                exclude_train=not self.wanted.include_seen,
                users=self.users,
                negatives=self.negatives,
                threads=self.threads,
                on_users=lambda done, total: self.steps.reporter.progress("measure", done, total),
            )
            details["told"] = f"{scorer.name}: {found.users:,} users"
        return found

    def baselines(self) -> Iterator[ModelResult]:
        for make in (scorers.Popularity, scorers.ItemKNN):
            began = time.perf_counter()
            scorer: Scorer = make(self.train)
            seconds = time.perf_counter() - began
            yield ModelResult(scorer.name, self.measure(scorer).values, seconds)

    def candidates(self) -> sparse.csr_matrix:
        """What is ranked for each user where there are negatives."""
        assert self.negatives is not None
        wanted, train = (self.negatives + self.test).astype(np.bool_), self.train.astype(np.bool_)
        return wanted.tocsr() if self.wanted.include_seen else sparse.csr_matrix(wanted > wanted.multiply(train))

    def of_lists(self, lists: NDArray[np.int32]) -> Metrics:
        return metrics.evaluate_lists(lists, self.users, self.train, self.test, ks=self.wanted.ks)


def _curve(
    split: Split, definition: Definition, wanted: Wanted, steps: Steps, settings: Settings, most_factors: int | None
) -> list[CurvePoint]:
    iterations = definition.hyperparameters.iterations
    with steps.step("curve") as details:
        watch = LearningCurve(
            split,
            every=wanted.curve,
            ks=wanted.ks if 20 in wanted.ks else (*wanted.ks, 20),
            seed=wanted.seed,
            threads=settings.threads,
            on_point=lambda point: steps.reporter.progress(
                "curve", point.iteration, iterations, f"{METRIC} {point.validation[METRIC]:.4f}"
            ),
        )
        fit(
            split.train,
            definition.confidence,
            definition.hyperparameters,
            most_factors=most_factors,
            device=settings.device,
            threads=settings.threads,
            watch=watch,
            users=watch.users,
        )
        details["told"] = f"{len(watch.points)} points on {len(watch.users):,} users"
    return watch.points


def _users(split: Split, wanted: Wanted) -> NDArray[np.intp]:
    users = split.users()
    if not len(users):
        raise InvalidInput("No user has both a training pair and a test pair, so nothing can be measured.")
    if wanted.users is None:
        return users
    number = wanted.users if isinstance(wanted.users, int) else max(1, round(wanted.users * len(users)))
    return sample(users, number, wanted.seed)


def _fit(
    split: Split, definition: Definition, settings: Settings, most_factors: int | None, steps: Steps, name: str
) -> tuple[FittedModel, FactorScorer]:
    """Trained as if the ids without a training pair did not exist, as a retrain on the training part would be; the scorer
    has the split's indices again, with zeros for them."""
    train = split.train
    iterations = definition.hyperparameters.iterations
    fitted = fit(
        train.subset(np.ones(len(train), dtype=np.bool_)),
        definition.confidence,
        definition.hyperparameters,
        most_factors=most_factors,
        device=settings.device,
        threads=settings.threads,
        on_iteration=lambda number, _s, _l: steps.reporter.progress("train", number + 1, iterations),
    )
    users = _placed(fitted.user_factors, train.user_index, len(train.users))
    items = _placed(fitted.factors.item_factors, train.item_index, len(train.items))
    return fitted, FactorScorer(name, users, items)


def _placed(factors: NDArray[np.float32], index: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    """Rows of the ids that occur in `index`, in their order, at their positions among `size`."""
    if len(factors) == size:
        return factors
    placed = np.zeros((size, factors.shape[1]), dtype=np.float32)
    placed[np.unique(index)] = factors
    return placed


def _through_store(
    split: Split,
    definition: Definition,
    wanted: Wanted,
    test: _Test,
    store: Store,
    settings: Settings,
    through_numpy: ModelResult,
    warnings: list[str],
) -> ModelResult:
    """A generation of the training part by the ordinary pipeline, and the metrics of what its functions return."""
    factors = definition.hyperparameters.factors or 0
    room = store.dimensions if store.dimensions and store.dimensions >= factors else None
    definition = definition.model_copy(
        update={
            "storage": Storage(vector_type=definition.storage.vector_type, dimensions=room),
            "publication": Publication(search=wanted.search, ann_recall=definition.publication.ann_recall),
        }
    )
    steps, train = test.steps, split.train
    types = store.user_type, store.item_type
    with scratch(
        store.url, settings, train, *types, definition, keep=store.keep, reporter=steps.reporter
    ) as recommender:
        with steps.step("store") as details:
            within = Within(steps.reporter, "store")
            own = settings.model_copy(update={"retention": 0.0})
            outcome = pipeline.retrain(store.url, own, recommender.name, reporter=within)
            if not outcome.live:
                raise RecstoreError(f"The scratch recommender could not go live; it waits for {outcome.blockers}.")
            warnings += [sentence for sentence in within.warnings if sentence not in warnings]
            seconds = sum(within.seconds[stage] for stage in ("weigh", "train", "solve users"))
            told = ", ".join(f"{stage} {taken:.1f} s" for stage, taken in within.seconds.items() if taken >= 0.05)
            how = _searched(store.url, recommender.relation("_generation"))
            details |= {"stages": within.seconds, "told": told}
        with steps.step("ask") as details:
            began = time.perf_counter()
            asked = store.url, recommender, train.users, train.items, test.users

            def on_users(done: int, total: int) -> None:
                steps.reporter.progress("ask", done, total)

            k, threads = max(wanted.ks), settings.threads
            if test.negatives is None:
                lists = through_sql.recommended(
                    *asked, k, exclude_seen=not wanted.include_seen, threads=threads, on_users=on_users
                )
            else:
                lists = through_sql.ranked(*asked, test.candidates(), k, threads=threads, on_users=on_users)
            each = 1000 * (time.perf_counter() - began) / len(test.users)
            details["told"] = f"{len(test.users):,} lists of {k} by SQL, {how}, {each:.1f} ms each"
    values = dict.fromkeys(through_numpy.metrics) | test.of_lists(lists).values
    return ModelResult(f"{through_numpy.name} through SQL, {how}", values, seconds, through_numpy.hyperparameters)


def _searched(url: str, relation: str) -> str:
    with connect(url) as connection:
        row = connection.execute(f"SELECT g.recommend_ef FROM {relation} g").fetchone()  # noqa: S608
    return "exact scan" if row is None or row["recommend_ef"] is None else f"HNSW at ef_search {row['recommend_ef']}"


def _trained(fitted: FittedModel) -> str:
    used = fitted.hyperparameters
    pairs = fitted.matrix.nnz
    return (
        f"{used.trainer}: {used.factors} factors, {used.iterations} iterations on {pairs:,} pairs,"
        f" on the {fitted.factors.device.upper()}"
    )


def _described(definition: Definition, hyperparameters: Hyperparameters) -> dict[str, Any]:
    return hyperparameters.model_dump() | {"confidence": definition.confidence.model_dump()}


def _worse(results: Sequence[ModelResult]) -> list[str]:
    """A sentence for each baseline that is better than the model."""
    own, *others = results
    name = next((name for name in own.metrics if name.startswith("ndcg@")), None)
    sentences = []
    for other in others[:2]:
        mine, its = own.metrics.get(name or ""), other.metrics.get(name or "")
        if mine is not None and its is not None and its > mine:
            sentences.append(
                f"{other.name} is better than {own.name}: {(name or '').replace('ndcg', 'NDCG')} {its:.4f} against {mine:.4f}."
            )
    return sentences
