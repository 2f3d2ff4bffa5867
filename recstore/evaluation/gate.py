"""Whether a new generation may go live: not if it is worse than the live one on what neither was trained on, nor if its source
lost most of its rows.

Between training and the exact users. The pairs of `held_out` were in no solve of items; the users they belong to are folded
into both generations' items by their other pairs, and whoever ranks the held-out items better on average is better. A
difference counts from a tolerance on, and from two standard errors of the paired difference on.
"""

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.evaluation.metrics import Metrics, evaluate
from recstore.evaluation.scorers import FactorScorer, Popularity, Scorer
from recstore.model import trainers
from recstore.model.held_out import MIN_USERS, PAIRS_BELOW, HeldOut, user_hashes
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trained import Stored
from recstore.model.trainers import FoldIn, Matrix, Trainer

K = 20
METRIC = f"ndcg@{K}"


@dataclass(frozen=True)
class Comparison:
    """Mean NDCG@20 over `users`, of `other` and of the new generation, and the paired difference, new minus other."""

    other: str  # "popularity" or "generation 41"
    users: int
    pairs: int
    of_other: float
    of_new: float
    difference: float
    standard_error: float

    def worse(self, tolerance: float) -> bool:
        """By more than `tolerance`, a share of the other's, and by more than two standard errors."""
        return self.difference < -max(tolerance * self.of_other, 2 * self.standard_error)

    def __str__(self) -> str:
        share = f", {self.difference / self.of_other:+.0%}" if self.of_other else ""
        return (
            f"NDCG@{K} {self.of_new:.4f} against {self.of_other:.4f} of {self.other}{share} (standard error of the"
            f" difference {self.standard_error:.4f}), on {self.pairs:,} held-out pairs of {self.users:,} users"
        )


@dataclass(frozen=True)
class Verdict:
    """What the held-out pairs say; `unknown` tells why nothing was compared with the live generation."""

    metrics: dict[str, float]
    users: int
    pairs: int
    popularity: Comparison
    live: Comparison | None
    unknown: str | None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def judge(
    interactions: Interactions,
    held: HeldOut,
    key: UUID,
    matrix: sparse.csr_matrix,
    trainer: Trainer,
    fold_in: FoldIn,
    live: Stored | None,
    threads: int = 0,
) -> Verdict:
    """Compares the generation trained on `matrix`, the confidences of `interactions` without the pairs `held`, with
    popularity and with the live one. Users whose every pair is held out are not counted."""
    test = _binary(interactions, held.pairs)
    sample = np.flatnonzero((np.diff(test.indptr) > 0) & (np.diff(matrix.indptr) > 0))
    seen = _binary(interactions, ~held.pairs)
    new = _scorer("new", trainer, matrix[sample], fold_in, fold_in.item_factors, threads)
    measured = _measure(new, seen[sample], test[sample], threads)
    popularity = _measure(Popularity(seen), seen[sample], test[sample], threads)

    compared, unknown = None, incomparable(live) if live else "there is no live generation"
    if live is not None and not unknown:
        fair = held.pairs & _held_out_of(live, interactions, key)
        both = _binary(interactions, fair)[sample]
        users = int(np.count_nonzero(np.diff(both.indptr)))
        if users < MIN_USERS:
            unknown = f"only {users} users have pairs that generation {live.generation} did not see either"
        else:
            name = f"generation {live.generation}"
            old = _measure(
                _live_scorer(name, live, interactions, ~held.pairs, sample, threads), seen[sample], both, threads
            )
            compared = _compare(name, both, old, _measure(new, seen[sample], both, threads))
    return Verdict(
        metrics={name: value for name, value in measured.values.items() if value is not None},
        users=measured.users,
        pairs=int(test[sample].nnz),
        popularity=_compare("popularity", test[sample], popularity, measured),
        live=compared,
        unknown=None if compared else unknown,
    )


def compare(
    interactions: Interactions, held: HeldOut, key: UUID, new: Stored, live: Stored, threads: int = 0
) -> tuple[Comparison | None, str | None]:
    """Two generations as they are stored, on those of the pairs `held` that neither was trained on; or None, and why nothing
    can be compared."""
    unknown = incomparable(live) or incomparable(new)
    if unknown:
        return None, unknown
    fair = held.pairs & _held_out_of(live, interactions, key) & _held_out_of(new, interactions, key)
    test, seen = _binary(interactions, fair), _binary(interactions, ~held.pairs)
    sample = np.flatnonzero((np.diff(test.indptr) > 0) & (np.diff(seen.indptr) > 0))
    if len(sample) < MIN_USERS:
        return None, f"only {len(sample)} users have pairs that neither generation was trained on"
    theirs, ours = (
        _measure(
            _live_scorer(f"generation {one.generation}", one, interactions, ~held.pairs, sample, threads),
            seen[sample],
            test[sample],
            threads,
        )
        for one in (live, new)
    )
    return _compare(f"generation {live.generation}", test[sample], theirs, ours), None


def incomparable(generation: Stored) -> str | None:
    """Why a stored generation can be compared with no other, if so."""
    if generation.held_out is None:
        return f"generation {generation.generation} was trained on every pair"
    if not generation.held_out["users_below"]:
        return f"generation {generation.generation} is from a file that does not tell which pairs it was trained on"
    if generation.trainer not in trainers.trainer_names():
        return f"the trainer of generation {generation.generation}, {generation.trainer!r}, is no longer installed"
    return None


def _binary(interactions: Interactions, pairs: NDArray[np.bool_]) -> sparse.csr_matrix:
    """1 for each of these pairs, users x items."""
    user, item = interactions.user_index[pairs], interactions.item_index[pairs]
    shape = len(interactions.users), len(interactions.items)
    return sparse.csr_matrix((np.ones(len(user), dtype=np.float32), (user, item)), shape=shape)


def _scorer(
    name: str, trainer: Trainer, rows: sparse.csr_matrix, fold_in: FoldIn, items: Matrix, threads: int
) -> FactorScorer:
    return FactorScorer(name, trainer.solve_users(rows, fold_in, threads), items)


def _measure(scorer: Scorer, seen: sparse.csr_matrix, test: sparse.csr_matrix, threads: int) -> Metrics:
    return evaluate(scorer, seen, test, ks=(K,), auc=False, mse=False, threads=threads)


def _compare(other: str, test: sparse.csr_matrix, theirs: Metrics, ours: Metrics) -> Comparison:
    differences = ours.per_user[METRIC] - theirs.per_user[METRIC]
    return Comparison(
        other=other,
        users=len(differences),
        pairs=int(test.nnz),
        of_other=float(theirs.per_user[METRIC].mean()),
        of_new=float(ours.per_user[METRIC].mean()),
        difference=float(differences.mean()),
        standard_error=float(differences.std(ddof=1) / len(differences) ** 0.5),
    )


def _held_out_of(live: Stored, interactions: Interactions, key: UUID) -> NDArray[np.bool_]:
    """The pairs that the live generation's training would have held out, had they been there: it saw none of them."""
    assert live.held_out is not None
    position = live.items.lookup(interactions.items.ids)
    users = np.where(position >= 0, live.item_users[position], live.held_out["min_users"])
    sampled = user_hashes(interactions.users, key) < np.uint64(live.held_out["users_below"])
    if live.held_out["pairs_below"] < PAIRS_BELOW:  # of a version of recstore that held out fewer
        return np.zeros(len(interactions), dtype=np.bool_)
    enough = users >= live.held_out["min_users"]
    fair: NDArray[np.bool_] = sampled[interactions.user_index] & enough[interactions.item_index]
    return fair


def _live_scorer(
    name: str, live: Stored, interactions: Interactions, seen: NDArray[np.bool_], sample: NDArray[np.intp], threads: int
) -> FactorScorer:
    """The sampled users folded into the live generation's items; an item that it does not know scores 0 with everybody."""
    position = live.items.lookup(interactions.items.ids)
    of_sample = np.full(len(interactions.users), -1, dtype=np.int32)
    of_sample[sample] = np.arange(len(sample), dtype=np.int32)
    kept = seen & (of_sample[interactions.user_index] >= 0) & (position[interactions.item_index] >= 0)
    rows = Interactions(
        IdMap(interactions.users.take(sample)),
        live.items,
        of_sample[interactions.user_index[kept]],
        position[interactions.item_index[kept]],
        interactions.values[kept],
    )
    known = position >= 0
    items = np.zeros((len(position), live.fold_in.item_factors.shape[1]), dtype=np.float32)
    items[known] = live.fold_in.item_factors[position[known]]
    trainer = trainers.trainer(live.trainer)
    return _scorer(name, trainer, live.confidence.matrix(rows, live.alpha), live.fold_in, items, threads)
