"""Each metric against arithmetic done by hand, and against pytrec_eval and scikit-learn."""

from dataclasses import dataclass

import numpy as np
import pytest
import pytrec_eval
from scipy import sparse

from recstore.evaluation.metrics import evaluate
from recstore.evaluation.scorers import FactorScorer

KS = (1, 3, 5, 10)


@dataclass
class Given:
    """Scores that were written down, (users, items)."""

    table: np.ndarray
    name: str = "given"

    def scores(self, users):
        return self.table[users].astype(np.float32)


def pairs(rows, items):
    """A matrix with 1 at the listed items of each row."""
    index = [(user, item) for user, row in enumerate(rows) for item in row]
    users, columns = zip(*index, strict=True) if index else ((), ())
    return sparse.csr_matrix((np.ones(len(index)), (users, columns)), shape=(len(rows), items))


# Two users, six items. The first has item 0 in training, 2, 4 and 5 held out; without 0 the list is 1 2 3 4 5, so hits
# are at the places 2, 4 and 5. The second has 1 and 2 in training, 0 held out; the list is 3 0 4 5 (4 and 5 tie), hit at 2.
# The third has training items alone and is not counted.
TRAIN = pairs([[0], [1, 2], [0, 1]], 6)
TEST = pairs([[2, 4, 5], [0], []], 6)
SCORES = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.1], [0.3, 0.9, 0.8, 0.4, 0.2, 0.2], [1, 1, 1, 1, 1, 1]])
LOG3, LOG5, LOG6 = np.log2(3), np.log2(5), np.log2(6)

BY_HAND = {
    "precision@1": (0 / 1, 0 / 1),
    "precision@3": (1 / 3, 1 / 3),
    "precision@5": (3 / 5, 1 / 5),
    "precision@10": (3 / 10, 1 / 10),  # k counts, also where the list ends before
    "recall@1": (0 / 3, 0 / 1),
    "recall@3": (1 / 3, 1 / 1),
    "recall@5": (3 / 3, 1 / 1),
    "ndcg@1": (0, 0),
    "ndcg@3": ((1 / LOG3) / (1 + 1 / LOG3 + 1 / 2), (1 / LOG3) / 1),  # ideal: places 1 to min(3, 3); 1 to min(3, 1)
    "ndcg@5": ((1 / LOG3 + 1 / LOG5 + 1 / LOG6) / (1 + 1 / LOG3 + 1 / 2), (1 / LOG3) / 1),
    "map@1": (0, 0),
    "map@3": ((1 / 2) / 3, (1 / 2) / 1),
    "map@5": ((1 / 2 + 2 / 4 + 3 / 5) / 3, 1 / 2),
    "hit_rate@1": (0, 0),
    "hit_rate@3": (1, 1),
    # users in training: item 0 two, item 1 two, item 2 one, the others none. First lists: 1 2 3; 3 0 4
    "mean_popularity@1": (2 / 1, 0 / 1),
    "mean_popularity@3": ((2 + 1 + 0) / 3, (0 + 2 + 0) / 3),
    "mean_popularity@10": ((2 + 1 + 0 + 0 + 0) / 5, (0 + 2 + 0 + 0) / 4),
    # others of the first: 1 and 3, of six pairs only 2 before 3; of the second: 3, 4 and 5, the last two rightly
    "auc": (1 / 6, 2 / 3),
}


@pytest.mark.parametrize("metric", BY_HAND)
def test_by_hand(metric):
    measured = evaluate(Given(SCORES), TRAIN, TEST, ks=KS)
    assert measured.user_index.tolist() == [0, 1]
    assert measured.per_user[metric].tolist() == pytest.approx(BY_HAND[metric])
    assert measured.values[metric] == pytest.approx(sum(BY_HAND[metric]) / 2)


def test_coverage_by_hand():
    """Lists of one: 1 and 3; of two: 1 2 and 3 0; of three: 1 2 3 and 3 0 4. The user without a test item adds nothing."""
    values = evaluate(Given(SCORES), TRAIN, TEST, ks=KS).values
    assert [values[f"coverage@{k}"] for k in KS] == pytest.approx([2 / 6, 5 / 6, 6 / 6, 6 / 6])


def test_training_items_included_by_hand():
    """The first user's list is 0 1 2 3 4 5, hit at 3; others are 0, 1 and 3, of nine pairs only 2 before 3. The second's
    is 1 2 3 0, no hit in three; others are all but 0, of five pairs 4 and 5 are behind it."""
    measured = evaluate(Given(SCORES), TRAIN, TEST, ks=(3,), exclude_train=False)
    assert measured.per_user["precision@3"].tolist() == pytest.approx([1 / 3, 0])
    assert measured.per_user["auc"].tolist() == pytest.approx([1 / 9, 2 / 5])


def test_a_tie_is_half_right_by_hand():
    """Held out 0, others 1 (above), 2 (equal), 3 (below): (0 + 1/2 + 1) / 3. The tie goes to the lower item: place 2."""
    measured = evaluate(Given(np.array([[5.0, 7.0, 5.0, 1.0]])), pairs([[]], 4), pairs([[0]], 4), ks=(2,))
    assert measured.values["auc"] == pytest.approx(1.5 / 3)
    assert measured.values["hit_rate@2"] == 1


def test_mse_by_hand():
    """x = (1, 1) and (0, 2), y = (1, 0), (0.5, 0.5), (0, 1). Scores: 1, 1, 1 and 0, 1, 2. The first user knows 0 (training)
    and 1: errors 0, 0, 1. The second knows 2: errors 0, 1, 1. The third is not evaluated."""
    scorer = FactorScorer("two", np.float32([[1, 1], [0, 2], [9, 9]]), np.float32([[1, 0], [0.5, 0.5], [0, 1]]))
    measured = evaluate(scorer, pairs([[0], [], [0]], 3), pairs([[1], [2], []], 3))
    assert measured.per_user["mse"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert measured.values["mse"] == pytest.approx(1 / 2)


def test_sampled_negatives_by_hand():
    """The first user: 2 and 5 held out, negatives 0 (in training: not ranked), 3 and 4. The list is 2 3 4 5, hits at 1 and
    4; of four pairs 2 before 3 and 4 are right. The second: 0 held out, negatives 3 and 5: the list is 3 0 5."""
    train, test = pairs([[0], [1]], 6), pairs([[2, 5], [0]], 6)
    measured = evaluate(Given(SCORES), train, test, ks=(1, 4), negatives=pairs([[0, 3, 4], [3, 5]], 6))
    assert measured.per_user["hit_rate@1"].tolist() == [1, 0]
    assert measured.per_user["recall@4"].tolist() == [1, 1]
    expected = [(1 + 1 / LOG5) / (1 + 1 / LOG3), 1 / LOG3]
    assert measured.per_user["ndcg@4"].tolist() == pytest.approx(expected)
    assert measured.per_user["auc"].tolist() == pytest.approx([2 / 4, 1 / 2])
    assert measured.values["coverage@4"] == 5 / 6  # the second's fourth place is empty
    included = evaluate(
        Given(SCORES), train, test, ks=(1,), exclude_train=False, negatives=pairs([[0, 3, 4], [3, 5]], 6)
    )
    assert included.per_user["hit_rate@1"].tolist() == [0, 0]
    assert included.per_user["auc"].tolist() == pytest.approx([2 / 6, 1 / 2])


@pytest.fixture(scope="module")
def split():
    """60 users, 300 items, the first five users without a test item, some items in no training pair."""
    random = np.random.default_rng(3)
    drawn = random.random((60, 300))
    drawn[:, :20] = np.maximum(drawn[:, :20], 0.1)
    train, test = drawn < 0.07, (drawn > 0.9) & (random.random((60, 1)) < 0.97)
    test[:5] = False
    factors = random.standard_normal((60, 8), dtype=np.float32), random.standard_normal((300, 8), dtype=np.float32)
    return train, test, factors


@pytest.fixture(scope="module")
def measured(split):
    train, test, factors = split
    return evaluate(FactorScorer("random", *factors), sparse.csr_matrix(train), sparse.csr_matrix(test), ks=KS)


@pytest.mark.parametrize(
    ("metric", "theirs"),
    [("precision", "P"), ("recall", "recall"), ("ndcg", "ndcg_cut"), ("map", "map_cut"), ("hit_rate", "success")],
)
@pytest.mark.parametrize("k", KS)
def test_as_pytrec_eval_has_it(split, measured, metric, theirs, k):
    train, test, (x, y) = split
    scores = np.where(train, -np.inf, x @ y.T)
    wanted = {str(u): {str(i): 1 for i in np.flatnonzero(test[u])} for u in np.flatnonzero(test.any(axis=1))}
    run = {u: {str(i): float(s) for i, s in enumerate(scores[int(u)]) if s > -np.inf} for u in wanted}
    found = pytrec_eval.RelevanceEvaluator(wanted, {f"{theirs}.{k}"}).evaluate(run)
    expected = np.array([found[str(u)][f"{theirs}_{k}"] for u in measured.user_index])
    if metric == "map":  # trec_eval divides by all held-out items
        held_out = test[measured.user_index].sum(axis=1)
        expected *= held_out / np.minimum(k, held_out)
    assert measured.users == len(wanted) == len(expected) > 40
    np.testing.assert_allclose(measured.per_user[f"{metric}@{k}"], expected, atol=1e-6)


@pytest.mark.parametrize("decimals", [6, 0])
@pytest.mark.parametrize("exclude_train", [True, False])
@pytest.mark.parametrize("sampled", [True, False])
def test_auc_as_scikit_learn_has_it(split, decimals, exclude_train, sampled):
    """With no decimals nearly all scores tie."""
    from sklearn.metrics import roc_auc_score  # which takes seconds to import

    train, test, (x, y) = split
    scores = np.round(x @ y.T, decimals)
    chosen = np.random.default_rng(4).random(test.shape) < 0.3 if sampled else np.ones_like(test)
    ranked = (chosen | test) & ~(train & exclude_train)
    measured = evaluate(
        Given(scores),
        sparse.csr_matrix(train),
        sparse.csr_matrix(test),
        exclude_train=exclude_train,
        negatives=sparse.csr_matrix(chosen) if sampled else None,
    )
    expected = [roc_auc_score(test[u, ranked[u]], scores[u, ranked[u]]) for u in measured.user_index]
    np.testing.assert_allclose(measured.per_user["auc"], expected, atol=1e-9)


def test_mse_as_scikit_learn_has_it(split, measured):
    from sklearn.metrics import mean_squared_error

    train, test, (x, y) = split
    expected = mean_squared_error((train | test)[measured.user_index].astype(float), (x @ y.T)[measured.user_index])
    assert measured.values["mse"] == pytest.approx(expected, rel=1e-6)


def test_mse_of_more_items_than_are_added_up_at_once():
    x, y = (np.random.default_rng(n).standard_normal((n, 2), dtype=np.float32) for n in (1, 9000))
    measured = evaluate(FactorScorer("many", x, y), pairs([[]], 9000), pairs([[0]], 9000), auc=False)
    known = np.arange(9000) == 0
    assert measured.values["mse"] == pytest.approx(np.mean((known - np.float64(x) @ y.T) ** 2), rel=1e-6)


def test_coverage_and_popularity_counted_otherwise(split, measured):
    train, test, (x, y) = split
    scores = np.where(train, -np.inf, x @ y.T)[test.any(axis=1)]
    lists = np.argsort(-scores, axis=1)[:, :10]
    assert measured.values["coverage@10"] == len(set(lists.ravel())) / 300
    assert measured.values["mean_popularity@10"] == pytest.approx(np.mean([train[:, i].sum() for i in lists.ravel()]))
