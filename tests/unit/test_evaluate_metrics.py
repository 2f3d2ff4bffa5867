"""What `evaluate` does at the edges: empty parts, ties, samples, threads, blocks, scores that are no numbers."""

import numpy as np
import pytest
from scipy import sparse
from test_metrics_definitions import Given, pairs

from recstore.errors import InvalidInput, ScoresNotFinite
from recstore.evaluation import metrics, ranking
from recstore.evaluation.baselines import Ease, ItemKNN, Popularity
from recstore.evaluation.metrics import Metrics, evaluate, evaluate_lists
from recstore.evaluation.scorers import FactorScorer


def in_order(block, k):
    """What `ranking.top` promises, by a sort of each row."""
    lists = np.full((len(block), min(k, block.shape[1])), -1)
    for row, scores in zip(lists, block, strict=True):
        order = np.lexsort((np.arange(len(scores)), -scores))
        order = order[scores[order] > -np.inf][:k]
        row[: len(order)] = order
    return lists


@pytest.mark.parametrize("columns", [1, 2, 37, 1023, 2048, 2049, 5000])
@pytest.mark.parametrize("k", [1, 20, 300, 1500])
def test_the_best_k_in_order_ties_by_column(columns, k):
    random = np.random.default_rng(columns + k)
    shape = 7, columns
    plain = random.standard_normal(shape).astype(np.float32)
    few = random.integers(-1, 2, shape).astype(np.float32)
    many = random.integers(0, 300, shape).astype(np.float32)
    signed = np.where(few == 0, np.float32(-0.0), few)
    rising = np.sort(plain, axis=1)
    for block in (plain, few, many, signed, rising, np.zeros_like(plain)):
        for kept in (1, 0.5, 0.01, 0):
            left = np.where(random.random(shape) < kept, block, -np.inf).astype(np.float32)
            np.testing.assert_array_equal(ranking.top(left, k), in_order(left, k))


@pytest.mark.parametrize("columns", [1, 40, 20_000])
@pytest.mark.parametrize("held_out", [0, 1, 23, 24, 100])
def test_pairs_are_counted_with_ties_twice(columns, held_out):
    random = np.random.default_rng(columns)
    scores = random.integers(0, 50, columns).astype(np.float32)
    bounds = random.integers(0, 50, held_out).astype(np.float32)
    expected = sum((scores > bound).sum() + (scores >= bound).sum() for bound in bounds)
    assert ranking.not_below(scores, bounds) == expected


def split(users=150, items=400, seed=5):
    random = np.random.default_rng(seed)
    drawn = random.random((users, items)) + 0.1 * np.linspace(0, 1, items)
    return sparse.csr_matrix(drawn < 0.08), sparse.csr_matrix(drawn > 1.0)


def factors(users=150, items=400, dimensions=6, seed=6, whole=False):
    random = np.random.default_rng(seed)
    both = random.standard_normal((users, dimensions)), random.standard_normal((items, dimensions))
    x, y = (np.round(side) if whole else side for side in both)
    return FactorScorer("factors", x.astype(np.float32), y.astype(np.float32))


def same(one: Metrics, other: Metrics):
    assert one.values == other.values
    for name, values in one.per_user.items():
        np.testing.assert_array_equal(values, other.per_user[name])


@pytest.mark.parametrize(
    "make", [lambda _: factors(whole=True), Popularity, ItemKNN, Ease], ids=["factors", "popularity", "kNN", "EASE"]
)
def test_the_same_on_any_number_of_threads_in_blocks_of_any_size(monkeypatch, make):
    """Of whole numbers sums are exact; of others the last bits of a product may depend on its shape."""
    train, test = split()
    usual = evaluate(make(train), train, test)
    for threads in (1, 3):
        same(usual, evaluate(make(train), train, test, threads=threads))
    for block in (1, 7, 1000):
        monkeypatch.setattr(ranking, "BLOCK_USERS", block)
        same(usual, evaluate(make(train), train, test))


def test_factors_score_the_same_on_any_number_of_threads():
    train, test = split()
    same(evaluate(factors(), train, test, threads=1), evaluate(factors(), train, test, threads=3))


def test_blocks_fit_their_memory():
    for items in (1, 40_000, 10**6, 10**9):
        users = ranking.block_users(items)
        assert 1 <= users <= 64
        assert users == 1 or users * items * 4 <= ranking.BLOCK_BYTES
    assert ranking.block_users(40_000) == 64
    assert ranking.block_users(10**6) == 16


def test_ties_go_by_item_everywhere():
    """All items tie: the lists are the first items that are not in training, also where the cut goes through the tie."""
    train, test = pairs([[0, 2], [1]], 3000), pairs([[3, 2999], [0]], 3000)
    for scorer in (Given(np.zeros((2, 3000))), factors(2, 3000), ItemKNN(train)):
        if isinstance(scorer, FactorScorer):
            scorer = FactorScorer("zeros", scorer.user_factors, np.zeros_like(scorer.item_factors))
        measured = evaluate(scorer, train, test, ks=(1, 2))
        assert measured.per_user["hit_rate@1"].tolist() == [0, 1]
        assert measured.per_user["hit_rate@2"].tolist() == [1, 1]
        assert measured.values["auc"] == 0.5
        assert measured.values["coverage@2"] == 4 / 3000  # 1 3 and 0 2


def test_some_of_the_users():
    train, test = split()
    everyone = evaluate(factors(), train, test)
    some = evaluate(factors(), train, test, users=np.array([9, 4, 4, 140], dtype=np.int32))
    assert some.user_index.tolist() == [4, 9, 140]
    assert some.users == 3
    rows = np.searchsorted(everyone.user_index, some.user_index)
    for name, values in some.per_user.items():
        np.testing.assert_allclose(values, everyone.per_user[name][rows], rtol=1e-6, err_msg=name)
    with pytest.raises(InvalidInput, match="150 users, but indices from 3 to 150"):
        evaluate(factors(), train, test, users=np.array([3, 9, 150]))


def test_no_user_to_measure():
    train, test = split()
    for tested, users in ((sparse.csr_matrix(train.shape), None), (test, np.array([]))):
        nothing = evaluate(factors(), train, tested, users=users)
        assert nothing.users == 0
        assert set(nothing.values.values()) == {None}


def test_one_item():
    measured = evaluate(Given(np.zeros((2, 1))), pairs([[], []], 1), pairs([[0], []], 1), ks=(1, 20))
    assert (measured.users, measured.items) == (1, 1)
    assert [measured.values[name] for name in ("precision@20", "recall@20", "ndcg@20", "map@20")] == [0.05, 1, 1, 1]
    assert measured.values["coverage@1"] == 1
    assert measured.values["auc"] is None  # no other item to compare with


def test_a_user_who_has_seen_everything():
    """A held-out item that is in training too cannot be listed; it counts as held out, and as the last in its pairs."""
    train, test = pairs([[0, 1, 2], [0, 1]], 3), pairs([[1], [1]], 3)
    measured = evaluate(factors(2, 3), train, test, ks=(2,))
    assert measured.per_user["recall@2"].tolist() == [0, 0]
    np.testing.assert_array_equal(measured.per_user["mean_popularity@2"], [np.nan, 1])  # an empty list; item 2 alone
    np.testing.assert_array_equal(measured.per_user["auc"], [np.nan, 0])
    assert measured.values["mean_popularity@2"] == 1
    assert measured.values["auc"] == 0
    scores = np.float64(factors(2, 3).scores(np.arange(2)))
    known = np.array([[1, 1, 1], [1, 1, 0]])
    assert measured.values["mse"] == pytest.approx(np.mean((known - scores) ** 2), rel=1e-5)


def test_items_that_a_scorer_never_recommends():
    """-inf is not listed. Held out, it is behind all that are ranked, and ties with the others of its kind."""
    scores = np.array([[-np.inf, 3, -np.inf, 1, -np.inf]])
    measured = evaluate(Given(scores), pairs([[4]], 5), pairs([[0, 3]], 5), ks=(5,))
    assert measured.values["recall@5"] == 1 / 2
    assert measured.values["auc"] == pytest.approx((0 + 1 / 2 + 0 + 1) / 4)  # 0 and 3, each with 1 and 2


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_scores_that_are_no_numbers(broken):
    scores = np.zeros((3, 2500))
    scores[1, 2049] = scores[2, 3] = broken
    with pytest.raises(ScoresNotFinite, match="scores of 2 users"):
        evaluate(Given(scores), pairs([[], [], []], 2500), pairs([[0], [0], [0]], 2500))


def test_what_cannot_be_measured_is_refused():
    train, test = split()
    for words, scorer, tested, more in (
        ("test", factors(), test[:, :5], {}),
        ("negatives", factors(), test, {"negatives": test[:5]}),
        ("k", factors(), test, {"ks": ()}),
        ("k", factors(), test, {"ks": (0, 5)}),
        ("factors", factors(items=399), test, {}),
    ):
        with pytest.raises(InvalidInput, match=words):
            evaluate(scorer, train, tested, **more)


def test_a_stored_value_is_a_pair():
    train, test = split()
    descending = np.concatenate([row[::-1] for row in np.split(train.indices, train.indptr[1:-1])])
    weighted = sparse.csr_matrix((np.arange(train.nnz) + 7.5, descending, train.indptr), shape=train.shape)
    before = weighted.toarray()
    twice = sparse.coo_matrix(test)
    both = np.concatenate
    twice = sparse.coo_matrix((np.ones(2 * test.nnz), (both([twice.row] * 2), both([twice.col] * 2))), shape=test.shape)
    same(evaluate(factors(), train, test), evaluate(factors(), weighted, twice))
    assert test.dtype == bool
    assert twice.nnz == 2 * test.nnz  # the caller's are not touched
    assert (weighted.toarray() == before).all()


def test_what_is_not_wanted_is_left_out():
    train, test = split()
    whole, bare = evaluate(factors(), train, test), evaluate(factors(), train, test, auc=False, mse=False)
    assert bare.values == whole.values | {"auc": None, "mse": None}
    assert whole.values["auc"] is not None
    assert whole.values["mse"] is not None
    assert evaluate(Popularity(train), train, test).values["mse"] is None


def test_progress_is_reported():
    train, test = split()
    seen = []
    evaluate(factors(), train, test, on_users=lambda done, of: seen.append((done, of)), threads=2)
    assert seen == [(64, 150), (128, 150), (150, 150)]


@pytest.mark.parametrize("at_once", [metrics.LISTS, 7])
def test_given_lists_are_measured_alike(monkeypatch, at_once):
    monkeypatch.setattr(metrics, "LISTS", at_once)
    train, test = split()
    measured = evaluate(factors(), train, test, ks=(5, 20))
    users = np.random.default_rng(0).permutation(150)
    scores = factors().scores(np.arange(150))
    scores[train.toarray()] = -np.inf
    given = evaluate_lists(in_order(scores, 20)[users], users, train, test, ks=(5, 20))
    assert given.values == measured.values | {"auc": None, "mse": None}
    assert not {"auc", "mse"} & given.per_user.keys()
    np.testing.assert_array_equal(given.user_index, measured.user_index)
    np.testing.assert_array_equal(given.per_user["ndcg@20"], measured.per_user["ndcg@20"])


def test_given_lists_with_gaps():
    """An unknown item takes its place; a list may be shorter than k; who has nothing held out is not counted."""
    train, test = pairs([[], [], []], 4), pairs([[1], [], [3]], 4)
    lists = np.array([[-1, 1], [2, 0], [0, -1]])
    given = evaluate_lists(lists, np.arange(3), train, test, ks=(1, 2, 5))
    assert given.per_user["hit_rate@1"].tolist() == [0, 0]
    assert given.per_user["ndcg@2"].tolist() == pytest.approx([1 / np.log2(3), 0])
    assert given.per_user["precision@5"].tolist() == [1 / 5, 0]
    assert given.values["coverage@5"] == 2 / 4
    of_one = evaluate_lists(lists[1:2, :1], np.array([2]), train, test)
    assert (of_one.user_index.tolist(), of_one.values["coverage@10"]) == ([2], 1 / 4)
    twice = np.array([[-1, 0, 0]] * 3)
    for users, wrong in (
        ([0, 0, 1], lists),
        ([0, 1], lists),
        *(([0, 1, 2], each) for each in (lists + 2, lists - 1, twice)),
    ):
        with pytest.raises(InvalidInput):
            evaluate_lists(wrong, np.array(users), train, test)
