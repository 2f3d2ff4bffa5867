"""Compare a new model with the live one, and its size with the live generation's, before it may go live. Pure.

The step between training and the exact users. No solve of items saw the pairs of `held_out`. The users they belong to are
folded into both models' items by their other pairs; the model that ranks the held-out items better on average is better, or of
ratings the one with the lower error. A difference counts from a tolerance on, and from two standard errors of the paired
difference on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.evaluation import rating_errors
from recstore.evaluation.baselines import Popularity
from recstore.evaluation.metrics import Metrics, evaluate
from recstore.evaluation.rating_errors import RMSE
from recstore.evaluation.scorers import FactorScorer, Scorer
from recstore.model import trainers
from recstore.model.held_out import MIN_USERS, PAIRS_BELOW, HeldOut, user_hashes
from recstore.model.interactions import IdMap, Interactions
from recstore.model.ratings import Ratings
from recstore.model.trained import Stored
from recstore.model.trainers import ratings
from recstore.wording import verdict_words

K = 20
METRIC = f"ndcg@{K}"


@dataclass(frozen=True)
class Comparison:
    """The mean of a metric over `users`, of `other` and of the new model, and the paired difference, new minus other."""

    other: str  # "popularity", of ratings "biases", or "generation 41"
    users: int
    pairs: int
    of_other: float
    of_new: float
    difference: float
    standard_error: float
    metric: str = METRIC

    def worse(self, tolerance: float) -> bool:
        """Return whether the new model loses more than `tolerance`, a share of the other's, and two standard errors."""
        lost = self.difference if self.metric == RMSE else -self.difference
        return lost > max(tolerance * self.of_other, 2 * self.standard_error)

    def __str__(self) -> str:
        share = f", {self.difference / self.of_other:+.0%}" if self.of_other else ""
        return (
            f"{self.metric.upper()} {self.of_new:.4f} against {self.of_other:.4f} of {self.other}{share} (standard error of the"
            f" difference {self.standard_error:.4f}), on {self.pairs:,} held-out pairs of {self.users:,} users"
        )


@dataclass(frozen=True)
class Verdict:
    """The metrics of a model on held-out pairs, and its comparisons; `unknown` is why there is none with the live model."""

    metrics: dict[str, float]
    users: int
    pairs: int
    popularity: Comparison | None
    live: Comparison | None
    unknown: str | None
    tolerance: float

    @property
    def worse(self) -> bool:
        """Return whether the model is worse than the live one."""
        return self.live is not None and self.live.worse(self.tolerance)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as a generation stores it, ready for JSON."""
        stored = asdict(self)
        del stored["tolerance"]
        return stored

    def details(self) -> dict[str, Any]:
        return self.as_dict() | {"refused": self.worse}

    def __str__(self) -> str:
        return verdict_words(self.as_dict())


def shrunk(now: Mapping[str, int], before: Mapping[str, int], max_fall: float) -> list[str]:
    """Return, for each count that has fallen by more than `max_fall`, a phrase that names it."""
    return [
        f"{count:,} {what} instead of {before[what]:,} ({count / before[what] - 1:+.0%})"
        for what, count in now.items()
        if count < (1 - max_fall) * before[what]
    ]


def judge(
    interactions: Interactions,
    held: HeldOut,
    key: UUID,
    new: Stored,
    live: Stored | None,
    *,
    tolerance: float,
    threads: int = 0,
) -> Verdict:
    """Compare a model with popularity, of ratings with biases alone, and with the live one, on those of the pairs `held` that
    its training did not see.

    Counts users who have another pair to be folded in by.
    """
    known = ~held.pairs
    unseen = held.pairs & _held_out_of(new, interactions, key)
    test, seen = interactions.part(unseen).matrix(), interactions.part(known).matrix()
    sample = np.flatnonzero((np.diff(test.indptr) > 0) & (np.diff(seen.indptr) > 0))
    if not len(sample):
        return Verdict({}, 0, 0, None, None, "no user has a pair that it was not trained on", tolerance)
    test_rows, seen_rows = test[sample], seen[sample]

    def measure(scorer: Scorer, model: Stored, pairs: sparse.csr_matrix) -> Metrics:
        return _measure(scorer, seen_rows, pairs, model, threads)

    scorer = _scorer("new", new, interactions, known, sample, threads)
    ours = measure(scorer, new, test_rows)
    baseline: Scorer = Popularity(trainers.liked(seen))
    if isinstance(new.confidence, Ratings):
        x, y = ratings.biases(new.confidence.matrix(interactions.part(known)))
        baseline = FactorScorer("biases", x[sample], y)
    compared, unknown = None, incomparable(live) if live else "there is no live generation"
    if live is not None and not unknown:
        both = interactions.part(unseen & _held_out_of(live, interactions, key)).matrix()[sample]
        users = int(np.count_nonzero(np.diff(both.indptr)))
        if users < MIN_USERS:
            unknown = f"only {users} users have pairs that generation {live.generation} did not see either"
        else:
            name = f"generation {live.generation}"
            if live.trainer == new.trainer:  # weights of items are a choice, and random pairs do not judge it
                live = replace(live, weights=new.weights)
            theirs = measure(_scorer(name, live, interactions, known, sample, threads), live, both)
            compared = _compare(name, both, theirs, measure(scorer, new, both))
    return Verdict(
        metrics={name: value for name, value in ours.values.items() if value is not None},
        users=ours.users,
        pairs=int(test_rows.nnz),
        popularity=_compare(baseline.name, test_rows, measure(baseline, new, test_rows), ours),
        live=compared,
        unknown=unknown,
        tolerance=tolerance,
    )


def incomparable(generation: Stored) -> str | None:
    """Return why a generation cannot be compared with another, or None."""
    if generation.held_out is None:
        return f"generation {generation.generation} was trained on every pair"
    if not generation.held_out["users_below"]:
        return f"generation {generation.generation} is from a file that does not say which pairs it was trained on"
    if generation.trainer not in trainers.trainer_names():
        return f"the trainer of generation {generation.generation}, {generation.trainer!r}, is no longer installed"
    return None


def _measure(scorer: Scorer, seen: sparse.csr_matrix, test: sparse.csr_matrix, model: Stored, threads: int) -> Metrics:
    """Return ranking metrics; of ratings, the errors too, and per user the RMSE alone."""
    if not isinstance(model.confidence, Ratings):
        return evaluate(scorer, seen, test, ks=(K,), auc=False, mse=False, threads=threads)
    assert isinstance(scorer, FactorScorer)
    liked = rating_errors.relevant(test, model.confidence.mean)
    found = evaluate(scorer, seen, liked, ks=(K,), auc=False, mse=False, threads=threads)
    errors = rating_errors.measure(scorer.user_factors, scorer.item_factors, model.confidence, test)
    values = errors.values() | found.values
    of_user = errors.of_user[~np.isnan(errors.of_user)]
    return replace(found, users=len(of_user), values=values, per_user={RMSE: of_user})


def _compare(other: str, test: sparse.csr_matrix, theirs: Metrics, ours: Metrics) -> Comparison:
    metric = RMSE if RMSE in ours.per_user else METRIC
    of_new, of_other = ours.per_user[metric], theirs.per_user[metric]
    differences = of_new - of_other
    return Comparison(
        other=other,
        users=len(differences),
        pairs=int(test.nnz),
        of_other=float(of_other.mean()),
        of_new=float(of_new.mean()),
        difference=float(differences.mean()),
        standard_error=float(differences.std(ddof=1) / len(differences) ** 0.5),
        metric=metric,
    )


def _held_out_of(model: Stored, interactions: Interactions, key: UUID) -> NDArray[np.bool_]:
    """Return the pairs that the model's training holds out or would have held out: it saw none of them."""
    assert model.held_out is not None
    position = model.items.lookup(interactions.items.ids)
    users = np.where(position >= 0, model.item_users[position], model.held_out["min_users"])
    sampled = user_hashes(interactions.users, key) < np.uint64(model.held_out["users_below"])
    if model.held_out["pairs_below"] < PAIRS_BELOW:  # a version of recstore that held out fewer pairs
        return np.zeros(len(interactions), dtype=np.bool_)
    enough = users >= model.held_out["min_users"]
    fair: NDArray[np.bool_] = sampled[interactions.user_index] & enough[interactions.item_index]
    return fair


def _scorer(
    name: str,
    model: Stored,
    interactions: Interactions,
    known: NDArray[np.bool_],
    sample: NDArray[np.intp],
    threads: int,
) -> FactorScorer:
    """Fold the sampled users into a model's items by their `known` pairs; an item it does not know scores 0."""
    position = model.items.lookup(interactions.items.ids)
    of_sample = np.full(len(interactions.users), -1, dtype=np.int32)
    of_sample[sample] = np.arange(len(sample), dtype=np.int32)
    kept = known & (of_sample[interactions.user_index] >= 0) & (position[interactions.item_index] >= 0)
    rows = Interactions(
        IdMap(interactions.users.take(sample)),
        model.items,
        of_sample[interactions.user_index[kept]],
        position[interactions.item_index[kept]],
        interactions.values[kept],
        None if interactions.times is None else interactions.times[kept],
    )
    trained = position >= 0
    items = np.zeros((len(position), model.fold_in.item_factors.shape[1]), dtype=np.float32)
    # by the users of the training alone: the held-out pairs must not weigh the items that they are to find
    weighted = model.weights.weighted(model.fold_in.item_factors, model.fold_in.item_users)
    items[trained] = weighted[position[trained]]
    users = trainers.trainer(model.trainer).solve_users(
        model.confidence.matrix(rows, model.alpha), model.fold_in, threads
    )
    return FactorScorer(name, users, items)
