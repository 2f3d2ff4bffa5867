"""Measure a definition on a split: `evaluate`, `benchmark` and the end of a search share this.

    split -> training -> metrics -> baselines -> a scratch recommender -> the metrics of what SQL returns

Knows no source and no stored recommender; what it publishes is a scratch recommender that it removes.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore import pipeline
from recstore.definition import Definition, Publication, Search, Storage
from recstore.errors import InvalidInput, RecstoreError
from recstore.evaluation import examples, metrics, rating_errors
from recstore.evaluation.baselines import MOST_ITEMS, Baseline, Ease, ItemKNN, Popularity
from recstore.evaluation.bootstrap import Bootstrap, Sums, Values, intervals
from recstore.evaluation.curves import METRIC, LearningCurve, sample
from recstore.evaluation.fitted import FittedModel, fit
from recstore.evaluation.metrics import Metrics
from recstore.evaluation.negatives import sampled_negatives
from recstore.evaluation.results import CurvePoint, Evaluation, Example, ModelResult, baselines
from recstore.evaluation.scorers import FactorScorer, Scorer
from recstore.evaluation.splits import SEED, Split
from recstore.experiments import through_sql
from recstore.experiments.experiment import Experiment
from recstore.experiments.scratch import Store, scratch
from recstore.model import confidence, trainers
from recstore.model.confidence import Weighting
from recstore.model.interactions import Interactions
from recstore.model.ratings import Ratings
from recstore.model.trainers import ratings
from recstore.postgres.connection import connect
from recstore.runs import Silent

TOO_FEW = 100
"""Measured users below which a metric says little: its standard error is about a twentieth."""

Titles = Callable[[list[Any]], dict[Any, str]]
"""Returns the titles of items by their ids, as far as they have one."""


@dataclass(frozen=True)
class Measurement:
    """The measurement that is asked for. `users`: a whole number of those that can be measured, or a share of them; None:
    all. `negatives`: sampled ones per user, 0: the full ranking. `curve`: iterations between two points, 0: no curve."""

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

    def sample(self, users: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the users to measure among those that can be measured. Raises InvalidInput where there is none."""
        if not len(users):
            raise InvalidInput("No user has both a training pair and a test pair, so nothing can be measured.")
        if self.users is None:
            return users
        number = self.users if isinstance(self.users, int) else max(1, round(self.users * len(users)))
        return sample(users, number, self.seed)


def measure(
    experiment: Experiment,
    split: Split,
    definition: Definition,
    wanted: Measurement,
    *,
    name: str,
    model: str | None = None,
    negatives: sparse.csr_matrix | None = None,
    store: Store | None = None,
    others: Mapping[str, Definition] | None = None,
    titles: Titles | None = None,
) -> Evaluation:
    """Train on all but the test part of `split` and measure the test part, once for each model.

    A curve needs a split with a validation part, and is drawn first. `name` is the evaluation's, `model` the model's if
    that is another one. Given `negatives` (users x items) are ranked against the test items, instead of sampled ones.
    `others`, by name, are trained and measured last, in the same way. With `titles` the evaluation has examples for a
    person to judge. Raises RecstoreError.
    """
    curve = _curve(experiment, split, definition, wanted) if wanted.curve else []
    test = _Test(experiment, split.refit(), wanted, negatives, definition.hyperparameters.explicit)
    warnings = split.refit().remarks()
    if len(test.users) < TOO_FEW:
        warnings.append(f"Only {len(test.users)} users are measured, so the metrics are rough.")
    fitted, scorer, own = test.trained(model or name, definition, first=True)
    warnings += fitted.factors.warnings
    results = [own, *test.baselines()]
    if store is not None and wanted.through_sql:
        exact = definition.model_copy(update={"hyperparameters": fitted.hyperparameters})
        results.append(test.through_store(exact, store, own, warnings))
    results += [test.trained(other, its)[2] for other, its in (others or {}).items()]
    train = test.split.train
    return Evaluation(
        recommender=name,
        split=test.split.how,
        seed=wanted.seed,
        users=len(train.users),
        items=len(train.items),
        train_pairs=len(train),
        test_pairs=len(test.split.test),
        evaluated_users=len(test.users),
        results=results,
        taken_at=experiment.began,
        curve=curve,
        examples=_examples(train, scorer.item_factors[:, : fitted.latent], titles) if titles else [],
        warnings=warnings + _worse(results),
    )


class _Test:
    """The test part, on which every model is measured in the same way."""

    def __init__(
        self,
        experiment: Experiment,
        split: Split,
        wanted: Measurement,
        negatives: sparse.csr_matrix | None,
        explicit: bool,
    ) -> None:
        self.experiment, self.split, self.wanted = experiment, split, wanted
        self.users = wanted.sample(split.users())
        self.negatives = negatives
        if negatives is None and wanted.negatives:
            self.negatives = sampled_negatives(split, self.users, wanted.negatives, wanted.seed)
        self.train, self.test = split.train.matrix(), split.test.matrix()
        self.rated = self.test if explicit else None
        self.test = rating_errors.relevant(self.test, float(split.train.values.mean()) if explicit else None)
        self.bootstrap = Bootstrap(len(self.users), wanted.seed)
        self.first: dict[str, Values] | None = None

    def trained(
        self, name: str, definition: Definition, *, first: bool = False
    ) -> tuple[FittedModel, FactorScorer, ModelResult]:
        """Train by a definition and measure that.

        Trains as if the ids without a training pair did not exist, as a retrain on the training part would; the scorer has
        the split's indices again.
        """
        train, iterations = self.split.train, definition.hyperparameters.iterations
        progress = self.experiment.progress("train")
        with self.experiment.step("train") as details:
            fitted = fit(
                train.subset(np.ones(len(train), dtype=np.bool_)),
                definition.confidence,
                definition.hyperparameters,
                on_iteration=lambda number, _s, _l: progress(number + 1, iterations),
                **self.experiment.training,
            )
            used = fitted.hyperparameters
            if first:
                details["seconds of training"] = round(fitted.seconds, 4)
            details["told"] = (
                f"{'' if first else f'{name}: '}{used.trainer}: {used.factors} factors, {used.iterations} iterations on"
                f" {fitted.matrix.nnz:,} pairs, on the {fitted.factors.device.upper()}"
            )
        users = _placed(fitted.user_factors, train.user_index, len(train.users))
        items = _placed(fitted.item_factors, train.item_index, len(train.items))
        scorer = FactorScorer(name, users, items)
        settings = used.model_dump() | {"confidence": definition.confidence.model_dump()}
        return fitted, scorer, self.result(scorer, fitted.seconds, settings, fitted.weighted.model)

    def result(
        self, scorer: Scorer, seconds: float, settings: dict[str, Any], model: Weighting | None = None
    ) -> ModelResult:
        """Measure a model; with ratings the errors come first, None for one that predicts no ratings."""
        found = self.measure(scorer)
        values, sums = found.values, found.sums(self.users)
        if self.rated is not None:
            errors: dict[str, float | None] = dict.fromkeys(rating_errors.ALL)
            if isinstance(scorer, FactorScorer) and isinstance(model, Ratings):
                x = scorer.user_factors[self.users]
                of_ratings = rating_errors.measure(x, scorer.item_factors, model, self.rated[self.users])
                errors, sums = of_ratings.values(), of_ratings.sums | sums
            values = errors | values
        return self.compared(ModelResult(scorer.name, values, seconds, settings), sums)

    def compared(self, result: ModelResult, sums: dict[str, Sums]) -> ModelResult:
        """Return the result with its intervals, and those of the first model's metrics minus its own."""
        resampled = self.bootstrap.resampled(sums)
        first, self.first = self.first, self.first or resampled
        differences = {} if first is None else intervals(first, less=resampled)
        return replace(result, intervals=intervals(resampled), differences=differences)

    def measure(self, scorer: Scorer) -> Metrics:
        with self.experiment.step("measure") as details:
            found = metrics.evaluate(
                scorer,
                self.train,
                self.test,
                ks=self.wanted.ks,
                exclude_train=not self.wanted.include_seen,
                users=self.users,
                negatives=self.negatives,
                threads=self.experiment.settings.threads,
                on_users=self.experiment.progress("measure"),
                mse=self.rated is None,
            )
            details["told"] = f"{scorer.name}: {found.users:,} users"
        return found

    def baselines(self) -> Iterator[ModelResult]:
        if self.rated is not None:
            began, weighted = time.perf_counter(), confidence.rate(self.split.train)
            biases = FactorScorer("biases", *ratings.biases(weighted.matrix))
            yield self.result(biases, time.perf_counter() - began, {}, weighted.model)
        train = self.train if self.rated is not None else trainers.liked(self.train)
        threads = self.experiment.settings.threads
        makes: list[Callable[[], Baseline]] = [lambda: Popularity(train), lambda: ItemKNN(train, threads=threads)]
        if train.shape[1] <= MOST_ITEMS:
            makes.append(lambda: Ease(train, threads=threads))
        else:
            with self.experiment.step("measure") as details:
                details["told"] = f"EASE: left out, since there are more than {MOST_ITEMS:,} items"
        for make in makes:
            began = time.perf_counter()
            scorer = make()
            yield self.result(scorer, time.perf_counter() - began, scorer.settings)

    def candidates(self) -> sparse.csr_matrix | None:
        """Return what is ranked for each user; None: all items."""
        if self.negatives is None:
            return None
        wanted, train = (self.negatives + self.test).astype(np.bool_), self.train.astype(np.bool_)
        return wanted.tocsr() if self.wanted.include_seen else sparse.csr_matrix(wanted > wanted.multiply(train))

    def through_store(self, definition: Definition, store: Store, own: ModelResult, warnings: list[str]) -> ModelResult:
        """Publish a generation of the training part by the ordinary pipeline, and measure what its functions return."""
        experiment, settings = self.experiment, self.experiment.settings
        hyperparameters = definition.hyperparameters
        wanted = (hyperparameters.factors or 0) + hyperparameters.bias_factors
        room = store.dimensions if (store.dimensions or 0) >= wanted else None
        storage = Storage(vector_type=definition.storage.vector_type, dimensions=room)
        publication = Publication(keep=1, search=self.wanted.search, ann_recall=definition.publication.ann_recall)
        definition = definition.model_copy(update={"storage": storage, "publication": publication})
        with scratch(store, settings, self.split.train, definition, experiment.reporter) as recommender:
            with experiment.step("store") as details:
                within = _Within(experiment)
                at_once = settings.model_copy(update={"retention": 0.0})
                outcome = pipeline.retrain(store.url, at_once, recommender.name, reporter=within)
                if not outcome.live:
                    raise RecstoreError(f"The scratch recommender could not go live; it waits for {outcome.blockers}.")
                warnings += [sentence for sentence in within.warnings if sentence not in warnings]
                seconds = sum(within.seconds[stage] for stage in ("weigh", "train", "solve users"))
                how = _searched(store.url, recommender.relation("_generation"))
                long = ", ".join(f"{stage} {took:.1f} s" for stage, took in within.seconds.items() if took >= 0.05)
                details |= {"stages": within.seconds, "told": long}
            with experiment.step("ask") as details:
                began, k = time.perf_counter(), max(self.wanted.ks)
                lists = through_sql.recommended(
                    store.url,
                    recommender,
                    self.split.train,
                    self.users,
                    k,
                    exclude_seen=not self.wanted.include_seen,
                    candidates=self.candidates(),
                    threads=settings.threads,
                    on_users=experiment.progress("ask"),
                )
                each = 1000 * (time.perf_counter() - began) / len(self.users)
                details["told"] = f"{len(self.users):,} lists of {k} by SQL, {how}, {each:.1f} ms each"
        found = metrics.evaluate_lists(lists, self.users, self.train, self.test, ks=self.wanted.ks)
        values = dict.fromkeys(own.metrics) | found.values
        result = ModelResult(f"{own.name} through SQL, {how}", values, seconds, own.hyperparameters)
        return self.compared(result, found.sums(self.users))


class _Within(Silent):
    """The reporter of a retrain that is one step of an experiment: passes its progress on, keeps its seconds and warnings."""

    def __init__(self, experiment: Experiment) -> None:
        self.reporter = experiment.reporter
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None:  # noqa: ARG002
        self.seconds[name] = round(seconds, 4)

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        self.reporter.progress("store", done, total, f"{name} {note}".strip())

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def _curve(experiment: Experiment, split: Split, definition: Definition, wanted: Measurement) -> list[CurvePoint]:
    iterations = definition.hyperparameters.iterations
    with experiment.step("curve") as details:
        curve = LearningCurve(
            split,
            every=wanted.curve,
            ks=wanted.ks if 20 in wanted.ks else (*wanted.ks, 20),
            seed=wanted.seed,
            on_point=lambda point: experiment.reporter.progress(
                "curve", point.iteration, iterations, f"{METRIC} {point.validation[METRIC]:.4f}"
            ),
        )
        curve.follow(definition.confidence, definition.hyperparameters, **experiment.training)
        details["told"] = f"{len(curve.points)} points on {len(curve.users):,} users"
    return curve.points


def _placed(factors: NDArray[np.float32], index: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    """Return `size` rows: the factors, in their order, at the positions that occur in `index`, and zeros elsewhere."""
    if len(factors) == size:
        return factors
    placed = np.zeros((size, factors.shape[1]), dtype=np.float32)
    placed[np.unique(index)] = factors
    return placed


def _searched(url: str, relation: str) -> str:
    with connect(url) as connection:
        row = connection.execute(f"SELECT g.recommend_ef FROM {relation} g").fetchone()  # noqa: S608
    return "exact scan" if row is None or row["recommend_ef"] is None else f"HNSW at ef_search {row['recommend_ef']}"


def _examples(train: Interactions, item_factors: NDArray[np.float32], titles: Titles) -> list[Example]:
    """Return lists of similar items by their titles; an item without one has its id."""
    found = examples.similar_items(item_factors, train.item_users())
    index = sorted({n for similar in found for n in (similar.item, *(item for item, _ in similar.similar))})
    ids = {n: train.items.to_python(n) for n in index}
    known = titles(list(ids.values()))
    named = {n: known.get(item) or str(item) for n, item in ids.items()}
    return [
        Example(
            f"Similar to {named[similar.item]} ({similar.users:,} users)",
            [(named[item], round(cosine, 4)) for item, cosine in similar.similar],
        )
        for similar in found
    ]


def _worse(results: list[ModelResult]) -> list[str]:
    """Return a sentence for each baseline that is better than the model."""
    own = results[0]
    name = next((name for name in own.metrics if name == rating_errors.RMSE or name.startswith("ndcg@")), "")
    sign = -1 if name == rating_errors.RMSE else 1
    sentences = []
    for other in baselines(results):
        mine, its = own.metrics.get(name), other.metrics.get(name)
        if mine is not None and its is not None and sign * its > sign * mine:
            metric = name.upper()
            sentence = f"{other.name} is better than {own.name}: {metric} {its:.4f} against {mine:.4f}"
            low, high = other.differences.get(name, (0.0, 0.0))
            sentences.append(sentence + (", which may be chance." if low < 0 < high else "."))
    return sentences
