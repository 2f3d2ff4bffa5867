"""Measure what evaluating a model costs next to the product and the lists that it needs. Prints both, and their ratio.

The bare one is what anyone would write: blocks of users, `U @ Y.T` on all cores, `np.argpartition` for the best 20, and
those sorted; nothing excluded, no metric. The whole is `evaluate`: training items excluded, ties by item, every metric. They
run in turns and the shortest time of each counts. Split and factors are generated; the shape is that of Gowalla's.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.evaluation.metrics import evaluate
from recstore.evaluation.scorers import FactorScorer


def pairs(users: int, items: int, per_user: int, random: np.random.Generator) -> sparse.csr_matrix:
    """Every user has one pair or more, the number falling off geometrically; an item's popularity falls with its rank r as
    r^(-2/3)."""
    count = random.geometric(1 / per_user, users)
    user = np.repeat(np.arange(users), count)
    item = (items * random.random(len(user)) ** 3).astype(np.int64)
    matrix = sparse.csr_matrix((np.ones(len(user), dtype=np.float32), (user, item)), shape=(users, items))
    matrix.sum_duplicates()
    return matrix


def split(users: int, items: int, random: np.random.Generator) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    train, test = pairs(users, items, 28, random), pairs(users, items, 7, random)
    test = sparse.csr_matrix(test - test.multiply(train.astype(bool)))
    test.eliminate_zeros()
    return train, test


def bare(
    user_factors: NDArray[np.float32], item_factors: NDArray[np.float32], k: int, block: int = 1024
) -> NDArray[np.intp]:
    """Return the k best items of every user, (users, k)."""
    lists = []
    for start in range(0, len(user_factors), block):
        scores = user_factors[start : start + block] @ item_factors.T
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        lists.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(lists)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=30_000)
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    random = np.random.default_rng(options.seed)
    train, test = split(options.users, options.items, random)
    user_factors = random.standard_normal((options.users, options.factors), dtype=np.float32)
    item_factors = random.standard_normal((options.items, options.factors), dtype=np.float32)
    scorer = FactorScorer("random", user_factors, item_factors)
    ways = {
        "bare product and top k": lambda: bare(user_factors, item_factors, options.k),
        "evaluate": lambda: evaluate(scorer, train, test, ks=(10, options.k)),
        "evaluate without auc and mse": lambda: evaluate(scorer, train, test, ks=(10, options.k), auc=False, mse=False),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - began)
    reference = min(seconds["bare product and top k"])
    print(f"{options.users} users, {options.items} items, {options.factors} factors, k = {options.k},", end=" ")
    print(f"{train.nnz} training and {test.nnz} held-out pairs")
    for way, took in seconds.items():
        print(f"{way:32} {min(took):7.2f} s   {min(took) / reference:5.2f} of the bare one")


if __name__ == "__main__":
    main()
